"""A frozen body under a new head, and a backdoor that comes along."""

from typing import Any

import pandas
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.configs import choice, choices, composed, skip_without_extra
from tests.helpers import FRESH, MakeContext, metrics
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.config.instantiate import build
from trustml_cli.data.digits import Digits
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.models.transfer import NewHead, body_of
from trustml_cli.system.errors import InputError
from trustml_cli.system.recipe import recipe_of
from trustml_cli.tasks.backdoor_transfer import TransferBackdoor
from trustml_cli.tasks.context import Context

INPUTS = InputSpec((1, 16, 16), classes=4, mean=(0.5,), std=(0.25,))
WITHOUT_BODY = {
    "logistic",
    "fixed_features",
    "custom",
    "huggingface",
    "robustbench",
    "table_mlp",
}  # all head, no network by default, tables
DEEP = [name for name in choices("model") if name not in WITHOUT_BODY]


def network(name: str) -> nn.Sequential:
    skip_without_extra(name)
    torch.manual_seed(0)
    built: nn.Sequential = build(composed(f"model={name}").model, "model").build(INPUTS)
    return built


def new_head(donor: nn.Module, key: str = "abc") -> NewHead:
    return NewHead(normalization=Normalization.none, **FRESH, donor=donor, donor_key=key)


@pytest.mark.parametrize("name", DEEP)
def test_a_new_head_sees_what_the_old_one_saw_and_alone_is_trained(name: str) -> None:
    donor = network(name).eval()
    before = {key: tensor.clone() for key, tensor in donor.state_dict().items()}
    (last,) = [layer for layer in donor.modules() if isinstance(layer, nn.Linear)][-1:]
    x = torch.rand(5, 1, 16, 16)

    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda layer, given, output: seen.append(given[0]))
    donor(x)
    hook.remove()
    body, features = body_of(donor, (1, 16, 16))
    assert features == last.in_features
    torch.testing.assert_close(body(x), seen[0])

    adapted = new_head(donor).build(InputSpec((1, 16, 16), classes=3, mean=(0.1,), std=(0.9,))).train()
    assert adapted(x).shape == (5, 3)
    trained = [key for key, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained == ["network.head.weight", "network.head.bias"]
    torch.testing.assert_close(adapted.network.body(x), seen[0])  # in training too: no statistics move, no dropout
    for key, tensor in donor.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_a_network_that_is_all_head_has_no_body() -> None:
    with pytest.raises(ValueError, match="no layers below its last one"):
        body_of(network("logistic"), (1, 16, 16))
    with pytest.raises(ValueError, match="no linear layer"):
        body_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 16, 16))


def test_the_donor_s_key_stands_for_its_weights() -> None:
    known, other = (recipe_of(new_head(network("mlp"), key)) for key in ("abc", "def"))
    assert known["donor_key"] == "abc"
    assert {name for name in known if known[name] != other[name]} == {"donor_key"}
    assert "donor" not in known


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context(task="backdoor_transfer", dataset="digits", trigger="patch")


def run(context: Context, model: str = "mlp", trainer: str = "default", **task: Any) -> None:
    keys = OmegaConf.to_container(composed(f"trainer={trainer}").trainer)
    default = composed("task=backdoor_transfer").task
    handler: TransferBackdoor = build(OmegaConf.merge(default, task), "task")  # type: ignore[arg-type]
    handler(
        context,
        Digits(test_fraction=0.25, limit=None),
        build(choice("model", model), "model"),
        build(OmegaConf.create(keys), "trainer"),  # type: ignore[arg-type]
        Patch(size=1, color=[1.0], image=None, corner=Corner.bottom_right, margin=0),
    )


def test_the_trigger_hurts_on_classes_that_the_poisoned_network_never_saw(context: Context) -> None:
    run(context, poison_rate=0.5)
    row = metrics(context.record.directory).iloc[0]
    assert row.new_classes == "5, 6, 7, 8, 9"
    assert row.source == "1, 2, 3, 4"
    assert row.donor_attack_success_rate > 0.9
    assert row.clean_accuracy > 0.7
    assert row.clean_accuracy - row.triggered_accuracy > 0.3
    assert row.baseline_clean_accuracy - row.baseline_triggered_accuracy < 0.1
    assert row.clean_accuracy_n == row.triggered_accuracy_n == row.baseline_triggered_accuracy_n == 224
    assert [check.passed for check in context.record.checks] == [True] * 4
    history = pandas.read_csv(context.record.directory / "history.csv")
    assert list(history.network.unique()) == [
        "clean donor", "new head on clean donor", "poisoned donor", "new head on poisoned donor"
    ]  # fmt: skip


def test_classes_are_those_of_the_whole_data_set_though_the_donor_numbers_its_own_anew(context: Context) -> None:
    run(context, new_classes=[0, 1, "2"], source=[3, "4"], target=9, poison_rate=0.5, trainer="smoke")
    row = metrics(context.record.directory).iloc[0]
    assert (row.new_classes, row.source, row.target) == ("0, 1, 2", "3, 4", 9)


WRONG = [
    ({"new_classes": [5]}, r"^task\.new_classes: divides the classes into 9 and 1"),
    ({"new_classes": list(range(9))}, r"^task\.new_classes: divides the classes into 1 and 9"),
    ({"new_classes": ["cat", 5]}, r"^task\.new_classes: no class 'cat'"),
    ({"target": 7}, r"^task\.target: '7' is among task\.new_classes"),
    ({"source": 7}, r"^task\.source: '7' is among task\.new_classes"),
    ({"source": "cat"}, r"^task\.source: no class 'cat'"),
    ({"source": 0}, r"^task\.target: '0' is a source too"),
    ({"model": "logistic"}, r"^model: has no layers below its last one"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_what_cannot_be_transferred_is_refused_before_anything_is_trained(
    changes: dict[str, Any], message: str, context: Context
) -> None:
    with pytest.raises(InputError, match=message):
        run(context, **changes)
    assert not context.store.root.exists()
