"""What tasks declare of the columns of metrics.csv."""

import pytest

from tests.configs import choices, columns
from trustml_cli.metrics.columns import (
    PARTS,
    Better,
    Column,
    conditions,
    declared,
    higher,
    in_words,
    is_share,
    lower,
    neither,
    sometimes,
)
from trustml_cli.metrics.numbers import in_percent


@pytest.mark.parametrize("task", choices("task"))
def test_every_task_declares_conditions_before_values_and_each_name_once(task: str) -> None:
    names = [column.name for column in columns(task)]
    assert len(set(names)) == len(names)
    assert not {"task", "dataset", "model", "seed"} & set(names)
    assert not [name for name in names if name.endswith(PARTS)]
    kinds = [column.condition for column in columns(task)]
    assert kinds == sorted(kinds, reverse=True)
    assert any(not column.condition and column.always for column in columns(task))


@pytest.mark.parametrize(
    ("task", "ways"),
    [
        ("fgsm", {"robust_accuracy": "higher", "attack_success_rate": "lower", "mean_l2": "neither"}),
        ("robust_train", {"robust_accuracy": "higher", "sure_success_rate": "lower"}),
        ("train", {"test_accuracy": "higher", "test_loss": "lower", "ece": "lower", "images_per_second": "higher"}),
        ("backdoor", {"attack_success_rate": "lower", "baseline_attack_success_rate": "neither"}),
        ("debias", {"p_rule_sex": "higher", "adversary_auc_sex": "lower", "roc_auc": "higher"}),
        ("ood", {"auroc": "higher", "fpr_at_95_tpr": "lower", "outlier_inlier_rate": "lower"}),
        ("ood", {"fpr_at_95_tpr_inliers_positive": "lower", "aupr_inliers_positive": "higher"}),
        (
            "credibility",
            {"auroc": "higher", "auroc_msp": "higher", "deceived_rate": "lower", "flagged_rate": "neither"},
        ),
        ("explain", {"deletion_auc": "lower", "insertion_auc": "higher", "rank_correlation_saliency": "neither"}),
        ("steal", {"victim_accuracy": "higher", "stolen_accuracy": "neither", "agreement": "neither"}),
        ("fooling", {"fooling_rate": "lower"}),
        ("rectify", {"combined_accuracy": "higher", "rectified_fooling_rate": "lower"}),
    ],
)
def test_what_is_better_for_whoever_relies_on_the_model(task: str, ways: dict[str, str]) -> None:
    assert {name: column.better.value for name, column in declared(columns(task), ways).items()} == ways


def test_a_name_in_braces_stands_for_any_other() -> None:
    column = Column("p_rule_{attribute}", Better.higher)
    names = ("p_rule_sex", "p_rule_marital.status\n", "a_p_rule_sex", "p_rule", "p")
    assert [column.holds(name) for name in names] == [True, True, False, False, False]
    assert not Column("a.b", Better.higher).holds("a_b")


def test_intervals_and_counts_come_with_their_column_alone() -> None:
    ours = (*higher("share"), *lower("loss"), *sometimes(neither("size")))
    found = declared(ours, ["share", "share_ci_low", "share_ci_high", "share_n", "size"])
    assert found == {"share": Column("share", Better.higher), "size": Column("size", Better.neither, always=False)}
    with pytest.raises(LookupError, match=r"^share_n: the task declares no such value in `columns`$"):
        declared(ours, ["share_n"])


def test_a_condition_is_no_value_and_a_value_no_condition() -> None:
    ours = (*conditions("epsilon"), *higher("share"))
    assert list(declared(ours, ["epsilon"], condition=True)) == ["epsilon"]
    for names, condition in ((["epsilon"], False), (["share"], True)):
        with pytest.raises(LookupError, match=names[0]):
            declared(ours, names, condition)


@pytest.mark.parametrize(
    ("name", "words"),
    [("fpr_at_95_tpr", "FPR at 95 % TPR"), ("tpr_at_0.1_fpr", "TPR at 0.1 % FPR"), ("p_rule_sex", "p-rule sex"),
     ("auroc", "AUROC"), ("outlier_inlier_rate", "outliers that pass"),
     ("robust_accuracy", "robust accuracy"), ("mean_l2", "mean L2")],
)  # fmt: skip
def test_names_are_words(name: str, words: str) -> None:
    assert in_words(name) == words


def test_shares_are_in_percent_and_other_values_are_not() -> None:
    shares = {name for name in ("test_accuracy", "fpr_at_95_tpr", "auroc", "p_rule_sex", "epsilon") if is_share(name)}
    assert shares == {"test_accuracy", "fpr_at_95_tpr"}
    texts = [in_percent(share) for share in (0.965, 1.0, 0.0, 0.9996, 0.0004, 1 / 3)]
    assert texts == ["96.5 %", "100 %", "0 %", "99.96 %", "0.04 %", "33.3 %"]
