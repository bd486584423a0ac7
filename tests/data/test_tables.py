"""Tables: what the readers make of columns, and the errors of files that are not what they should be."""

import gzip
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from omegaconf import OmegaConf

from tests.configs import composed
from tests.faults.whole import memory_up_to
from tests.helpers import NO_CACHE, Reader
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.data.table import Columns, Rows, Table, divide_strata, tabulate
from trustml_cli.data.table_features import tree_cuts
from trustml_cli.fairness.metrics import p_rule
from trustml_cli.models.model import Normalize
from trustml_cli.system.errors import InputError
from trustml_cli.training.inputs import input_spec

MEANING = Columns(label="hired", positive="yes", sensitive=["sex"])


def source(name: str, **changes: Any) -> Reader:
    node = composed(f"dataset={name}").dataset
    for key, value in changes.items():
        OmegaConf.update(node, key, value)
    return Reader(build(node, "dataset", Permissions(folders=[Path("/")])), NO_CACHE)


def applicants(n: int = 60) -> pandas.DataFrame:
    """Hired where the grade is above 4.5; sex and town alternate, one town is rare."""
    numbers = np.arange(n)
    return pandas.DataFrame(
        {
            "grade": numbers % 10,
            "town": np.where(numbers == 0, "Ulm", np.where(numbers % 3 == 0, "Bonn", "Kiel")),
            "sex": np.where(numbers % 2 == 0, "f", "m"),
            "hired": np.where(numbers % 10 > 4.5, "yes", "no"),
        }
    )


def test_columns_become_numbers_steps_and_categories_and_the_sensitive_one_stays_out() -> None:
    frame = applicants()
    table = tabulate(frame, frame, MEANING, bins=3, source="made up", key="dataset")
    assert table.classes == ("no", "yes")
    assert table.attributes[0].groups == ("f", "m")
    assert table.train.sensitive[:, 0].tolist() == [0, 1] * 30
    assert torch.equal(table.train.labels, (torch.arange(60) % 10 > 4.5).long())
    number, step, *towns = table.train.inputs.T  # one cut tells all, a tree makes no second one
    assert number.tolist() == [index % 10 for index in range(60)]
    assert torch.equal(step, table.train.labels.float())
    numeric, word = (name for name in frame if name not in (MEANING.label, *MEANING.sensitive))
    assert table.feature_columns == (numeric, numeric, word, word, word)
    assert len(towns) == 3  # Bonn, Kiel, and those that are rare
    assert torch.equal(sum(towns), torch.ones(60))
    assert towns[2].tolist() == [1.0] + [0.0] * 59


@pytest.mark.parametrize(
    ("scale", "start"),
    [(1, 0), (1e-9, 0), (1, 1_700_000_000_000), (1e-9, 1e-3), (1e30, 0)],
    ids=["plain", "tiny", "milliseconds since 1970", "tiny differences", "large"],
)
def test_numbers_reach_the_network_at_one_scale(scale: float, start: float) -> None:
    numbers = np.arange(60) % 10
    frame = applicants().assign(grade=start + scale * numbers)
    table = tabulate(frame, frame, MEANING, bins=0, source="made up", key="dataset")
    spec = input_spec(table)
    grade = Normalize(spec.mean, spec.std)(table.train.inputs)[:, 0]
    torch.testing.assert_close(grade, torch.tensor((numbers - 4.5) / numbers.std()).float(), rtol=0, atol=1e-3)


def test_a_constant_column_is_not_scaled() -> None:
    for value in (0.0, 1e-9, 0.1, 1_700_000_000_123.0):
        frame = applicants(5000).assign(grade=value)
        assert input_spec(tabulate(frame, frame, MEANING, bins=0, source="made up", key="dataset")).std[0] == 1.0


def test_what_test_rows_say_changes_nothing_about_training_rows() -> None:
    frame = applicants()
    other = applicants().assign(grade=1000, town="Paris")
    other.loc[3, "grade"] = np.nan
    one = tabulate(frame, frame, MEANING, bins=3, source="", key="dataset")
    two = tabulate(frame, other, MEANING, bins=3, source="", key="dataset")
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert one.fingerprint != two.fingerprint
    assert two.test.inputs[:, 0].tolist() == [1000.0] * 3 + [4.5] + [1000.0] * 56  # the median for what is missing
    assert two.test.inputs[:, -1].tolist() == [1.0] * 60  # a town that is new counts as rare


def test_the_seed_of_the_split_decides_which_rows_are_held_out() -> None:
    first, again, other = (source("census", rows=200, split_seed=seed).load() for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(first.test) == len(other.test) == 60
    assert first.test.labels.sum() == other.test.labels.sum()  # of each class, the same share
    every = [torch.cat([part.train.inputs, part.test.inputs]).sum(0) for part in (first, other)]
    torch.testing.assert_close(*every)  # the same people


def test_cuts_are_where_labels_change() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 4.0], 20)[:, None]
    labels = np.repeat([False, True, True, False], 20)
    assert tree_cuts(values, labels, 8).tolist() == [1.5, 3.5]
    assert len(tree_cuts(values, labels, 1)) == 1
    assert len(tree_cuts(values, labels, 0)) == 0


def test_rows_stay_together_wherever_they_go() -> None:
    inputs = torch.arange(40.0).view(20, 2)
    rows = Rows(inputs, (inputs[:, 0] % 4 == 0).long(), inputs.long())
    for part in (*rows.divide(0.25, seed=0), rows.on(torch.device("cpu"))):
        assert torch.equal(part.sensitive, part.inputs.long())
        assert torch.equal(part.labels, (part.inputs[:, 0] % 4 == 0).long())
    assert [len(part) for part in rows.divide(0.25, seed=0)] == [15, 5]


def test_every_stratum_gives_its_share() -> None:
    strata = torch.arange(10).repeat_interleave(torch.tensor([2, 3, 5, 10, 40, 1, 100, 7, 12, 20]))
    strata = strata[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    kept, aside = divide_strata(strata, 0.25, seed=0)
    assert torch.equal(torch.cat([kept, aside]).sort().values, torch.arange(200))
    assert len(aside) == 50
    for number in range(10):
        expected = 0.25 * int((strata == number).sum())
        assert abs(int((strata[aside] == number).sum()) - expected) < 1
    assert not torch.equal(aside, divide_strata(strata, 0.25, seed=1)[1])
    assert torch.equal(aside, divide_strata(strata, 0.25, seed=0)[1])


def test_every_row_is_set_aside_in_one_fold() -> None:
    table = tabulate(applicants(), applicants(), MEANING, bins=3, source="made up", key="dataset")
    folds = list(table.cross_validation(3, seed=0))
    for kept, aside in folds:
        assert aside.columns is not None
        assert len(aside) == 20
        assert aside.labels.double().mean() == pytest.approx(0.5, abs=0.06)
        assert not set(aside.columns.index) & set(kept.train.columns.index)
        assert len(kept.train) == 40
    assert sorted(index for _, aside in folds for index in aside.columns.index) == list(range(60))
    assert len({kept.fingerprint for kept, _ in folds} | {table.fingerprint}) == 4
    assert any(kept.train.inputs.shape[1] < table.train.inputs.shape[1] for kept, _ in folds)  # one did not see Ulm


def test_rows_that_are_set_aside_teach_nothing_about_the_columns() -> None:
    table = source("census", rows=2000, bins=4).load()
    assert isinstance(table, Table)
    less, validation = table.split_validation(0.25, seed=0)
    assert (len(less.train), len(validation)) == (1050, 350)
    for group in range(2):
        shares = [(part.sensitive[:, group] == 0).double().mean().item() for part in (less.train, validation)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert less.fingerprint != table.fingerprint
    assert less.shape == validation.shape == less.test.shape == (len(less.feature_columns),)

    _, aside = divide_strata(table.train.strata, 0.25, seed=0)
    assert table.train.columns is not None
    other = table.train.columns.copy()
    other.iloc[aside.numpy(), other.columns.get_loc("age")] = 1000
    rows = Rows(table.train.inputs, table.train.labels, table.train.sensitive, other)
    again, changed = replace(table, train=rows).split_validation(0.25, seed=0)
    assert torch.equal(again.train.inputs, less.train.inputs)  # though a tree would have cut at 1000
    assert torch.equal(again.test.inputs, less.test.inputs)
    assert changed.inputs[:, 0].eq(1000).all()


@pytest.mark.parametrize(("origin_bias", "sex_bias"), [(0.0, 0.0), (0.6, 0.0), (0.3, 0.7)])
def test_the_bias_of_census_is_the_one_that_is_stated(origin_bias: float, sex_bias: float) -> None:
    table = source("census", rows=40_000, bins=0, origin_bias=origin_bias, sex_bias=sex_bias).load()
    assert isinstance(table, Table)
    assert [attribute.name for attribute in table.attributes] == ["origin", "sex"]
    rules = [p_rule(table.train.labels == 1, group) for group in table.train.sensitive.T]
    assert rules == pytest.approx([100 * (1 - origin_bias), 100 * (1 - sex_bias)], abs=5)


def test_census_is_always_the_same_and_its_limit_holds() -> None:
    one, two = source("census", rows=4000).load(), source("census", rows=4000).load()
    assert one.fingerprint == two.fingerprint
    few = source("census", limit=50).load()
    assert isinstance(few, Table)
    assert len(few.train) == len(few.train.sensitive) == len(few.test) == 50


ADULT = "39, {work}, 77516, Bachelors, 13, Never-married, Sales, Husband, {race}, {sex}, 2174, 0, 40, Cuba, {income}\n"


@pytest.fixture
def adult_files(tmp_path: Path) -> Path:
    """The two files in UCI's format, 40 rows each, of which 30 are of two races."""
    (tmp_path / "adult").mkdir()
    for name, end in (("adult.data", ""), ("adult.test", ".")):
        lines = ["|1x3 Cross validator\n"] if end else []
        for row in range(40):
            race = ("White", "Black", "White", "Other")[row % 4]
            income = (">50K" if row % 3 == 0 else "<=50K") + end
            sex = "Male" if row < 20 else "Female"
            lines.append(ADULT.format(work="?" if row < 20 else "Private", race=race, sex=sex, income=income))
        (tmp_path / "adult" / name).write_text("".join(lines) + "\n")
    return tmp_path


def test_adult_is_read_as_uci_wrote_it(adult_files: Path) -> None:
    random = source("adult", data_dir=str(adult_files)).load()
    official = source("adult", data_dir=str(adult_files), split="official").load()
    everyone = source("adult", data_dir=str(adult_files), split="official", races="all").load()
    for table, train, test in ((random, 21, 9), (official, 30, 30), (everyone, 40, 40)):
        assert isinstance(table, Table)
        assert (len(table.train), len(table.test)) == (train, test)
        assert table.classes == ("<=50K", ">50K")
        assert table.attributes[1].groups == ("Female", "Male")
        assert table.test.labels.double().mean().item() == pytest.approx(1 / 3, abs=0.05)
    assert everyone.attributes[0].groups == ("Black", "Other", "White")  # type: ignore[attr-defined]
    assert len({table.fingerprint for table in (random, official, everyone)}) == 3


def test_adult_names_what_is_wrong(adult_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"dataset\.races: no race 'Green' .*there are all, Black, Other, White"):
        source("adult", data_dir=str(adult_files), races="Green").load()
    with pytest.raises(InputError, match=r"dataset\.races: column 'race' has the one value 'White'"):
        source("adult", data_dir=str(adult_files), races="White").load()
    (adult_files / "adult" / "adult.data").write_text("<html>not found</html>\n")
    with pytest.raises(InputError, match=r"adult\.data is not UCI's adult.data"):
        source("adult", data_dir=str(adult_files)).load()

    def unreachable(*arguments: object, **more: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("trustml_cli.data.adult.urlopen", unreachable)
    with pytest.raises(InputError, match=r"absent and could not be downloaded .*Name or service.*TRUSTML_DATA_DIR"):
        source("adult", data_dir=str(adult_files / "elsewhere")).load()


def test_a_download_that_is_not_the_file_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "login.html"
    page.write_text("please log in")
    monkeypatch.setattr("trustml_cli.data.adult.HOME", tmp_path.as_uri())
    (tmp_path / "adult.data").write_text("please log in")
    with pytest.raises(InputError, match="its checksum differs"):
        source("adult", data_dir=str(tmp_path / "data")).load()
    assert not (tmp_path / "data").exists()


def csv(file: Path, frame: pandas.DataFrame, **changes: Any) -> Reader:
    frame.to_csv(file, index=False)
    keys = {"path": str(file), "label": "hired", "positive": "yes", "sensitive": "sex", **changes}
    return source("csv", **keys)


def test_one_s_own_table_is_read(tmp_path: Path) -> None:
    table = csv(tmp_path / "people.csv", applicants().assign(name=[f"p{i}" for i in range(60)]), drop="name").load()
    assert isinstance(table, Table)
    assert (len(table.train), len(table.test)) == (42, 18)
    assert table.shape == (4,)  # grade, its step, two towns: the rare one is a test row
    assert table.test.labels.double().mean() == 0.5
    numbers = applicants().assign(hired=np.arange(60) % 2, sex=np.arange(60) % 3)
    coded = csv(tmp_path / "numbers.csv", numbers, positive="1").load()
    assert coded.classes == ("0", "1")
    assert coded.attributes[0].groups == ("0", "1", "2")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "salary"}, r"^dataset\.label: no column 'salary' .*there are grade, town, sex, hired$"),
        ({"sensitive": ["sex", "race"]}, r"^dataset\.sensitive: no column 'race'"),
        ({"sensitive": "city"}, r"^dataset\.sensitive: no column 'city'"),
        ({"drop": "x"}, r"^dataset\.drop: no column 'x'"),
        ({"positive": "maybe"}, r"^dataset\.positive: no value 'maybe' .*there are no, yes$"),
        ({"sensitive": "one"}, r"^dataset\.sensitive: column 'one' has the one value '1'"),
        ({"sensitive": "id"}, r"^dataset\.sensitive: column 'id' has 60 values; make groups"),
        ({"test_fraction": 1.5}, r"^dataset\.test_fraction: must be between"),
        ({"split_seed": -1}, r"^dataset\.split_seed: must be at least 0"),
        ({"bins": -1}, r"^dataset\.bins: must be at least 0"),
        ({"path": "nowhere.csv"}, r"^dataset\.path: no file nowhere\.csv"),
    ],
)
def test_csv_names_what_is_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    more = {"one": {"one": 1}, "id": {"id": np.arange(60)}}
    frame = applicants().assign(**more.get(str(changes.get("sensitive")), {}))
    with pytest.raises(InputError, match=message):
        csv(tmp_path / "people.csv", frame, **changes).load()


WIDE = ",".join(f"x{number}" for number in range(20_001)).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n",
        b"\xff\xfe\x00",
        b'a,b\n1,"2\n',
        WIDE + b"\n",
        b"x" * 200_000 + b"\n1\n",
        gzip.compress(b"a,b\n", mtime=0),
    ],
)
def test_a_file_that_is_no_table_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.csv"):
        source("csv", path=str(path), label="a", positive="1", sensitive="b").load()


def test_a_table_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    path.write_text("a,b\n1,2\n")
    os.truncate(path, 2**40)
    with memory_up_to(50), pytest.raises(InputError, match=r"huge\.csv cannot be read .*holds 1,099,511,627,776 bytes"):
        source("csv", path=str(path), label="a", positive="1", sensitive="b").load()


def test_a_class_of_one_row_cannot_be_split(tmp_path: Path) -> None:
    frame = applicants().assign(hired=["yes"] + ["no"] * 59)
    with pytest.raises(InputError, match="hired=yes splits the table into a class of 1 rows"):
        csv(tmp_path / "people.csv", frame).load()


def test_a_table_of_labels_and_groups_alone_has_no_features(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no columns beside"):
        csv(tmp_path / "people.csv", applicants()[["sex", "hired"]]).load()


def test_a_message_holds_a_few_names_only(tmp_path: Path) -> None:
    more = pandas.DataFrame(np.ones((60, 1000)), columns=["x" * 1000, *(f"y{number}" for number in range(999))])
    frame = pandas.concat([applicants(), more], axis=1)
    for changes in ({"label": "nope"}, {"label": "y0", "positive": "nope"}):
        with pytest.raises(InputError, match=r"there are") as caught:
            csv(tmp_path / "people.csv", frame, **changes).load()
        assert len(str(caught.value)) < 500
