from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trustml_cli.config.instantiate import build, build_as, nearest
from trustml_cli.config.trust import Permissions
from trustml_cli.system.errors import InputError


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True, kw_only=True)
class Thing:
    count: int
    rate: float
    quick: bool
    colour: Colour
    where: Path
    steps: list[float]
    names: list[str] | None
    most: int | None

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count: must be at least 0, got {self.count}")
        if self.rate < 0:
            raise ValueError("negative\nrates make no sense")


ALLOW = Permissions([f"allow=[{__name__},pathlib]"])
GOOD = {"_target_": f"{__name__}.Thing", "count": 3, "rate": 1, "quick": True, "colour": "blue", "where": "~/here",
        "steps": [1, 0.5], "names": None, "most": None}  # fmt: skip


def thing(**changes):
    values = {**GOOD, **changes}
    return build(OmegaConf.create({key: value for key, value in values.items() if value is not thing}), "task", ALLOW)


def test_the_class_named_by_target_is_made_with_the_types_of_its_fields():
    made = thing()
    assert made == Thing(count=3, rate=1.0, quick=True, colour=Colour.blue, where=Path.home() / "here",
                         steps=[1.0, 0.5], names=None, most=None)  # fmt: skip
    assert [type(value) for value in (made.rate, *made.steps, made.steps)] == [float, float, float, list]


@pytest.mark.parametrize(
    ("key", "given", "made"),
    [
        ("steps", 2, [2.0]),
        ("names", "one", ["one"]),
        ("names", ["one", "two"], ["one", "two"]),
        ("steps", [], []),
        ("most", 4, 4),
        ("rate", "1e-3", 0.001),
        ("count", "7", 7),
        ("where", "/data/x", Path("/data/x")),
    ],
)
def test_a_value_takes_the_type_of_its_field(key, given, made):
    value = getattr(thing(**{key: given}), key)
    assert (value, type(value)) == (made, type(made))


@dataclass(frozen=True)
class Letter:
    text: str

    @classmethod
    def from_file(cls, path):
        if not path.exists():
            raise ValueError(f"no letter {path}")
        return cls(path.read_text())


@dataclass(frozen=True)
class Post:
    letter: Letter | None
    copies: int


def test_a_field_of_a_type_that_reads_files_is_read_from_the_file_named(tmp_path):
    (tmp_path / "letter").write_text("hello")
    assert build_as(Post, {"letter": str(tmp_path / "letter"), "copies": 2}, "task") == Post(Letter("hello"), 2)
    assert build_as(Post, {"letter": None, "copies": 2}, "task").letter is None
    for values, words in (({"letter": "gone", "copies": 2}, r"task\.letter: no letter gone"),
                          ({"letter": [1], "copies": 2}, r"task\.letter: "),
                          ({"letter": None, "copies": "x"}, r"task\.copies: must be a whole number")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            build_as(Post, values, "task")


def test_interpolations_are_followed():
    config = OmegaConf.create({"all": [1, 2], "task": {**GOOD, "steps": "${all}"}})
    assert build(config.task, "task", ALLOW).steps == [1.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cuont": 1}, "task.cuont: no such key; did you mean 'count'?"),
        ({"xyzzy": 1}, "task.xyzzy: no such key; there are count, rate, quick, colour,"),
        ({"rate": thing}, "task.rate: needs a value; set it with task.rate=VALUE"),
        ({"rate": "???"}, "task.rate: needs a value; set it with task.rate=VALUE"),
        ({"count": 1.5}, "task.count: must be a whole number, got '1.5'"),
        ({"count": True}, "task.count: must be a whole number, got 'True'"),
        ({"rate": "fast"}, "task.rate: must be a number, got 'fast'"),
        ({"quick": "soon"}, "task.quick: must be true or false, got 'soon'"),
        ({"steps": [1, "a"]}, "task.steps: must be a number, got 'a'"),
        ({"steps": [[1, 2]]}, "task.steps: must be a list of single values, got [[1, 2]]"),
        ({"steps": {"a": 1}}, "task.steps: must be a list of single values"),
        ({"steps": None}, "task.steps: "),
        ({"count": None}, "task.count: "),
        ({"colour": "green"}, "task.colour: Invalid value 'green', expected one of [red, blue]"),
        ({"count": -1}, "task.count: must be at least 0, got -1"),
        ({"rate": -1.0}, "task: negative rates make no sense"),
        ({"_target_": thing}, "task: this choice names no _target_; add the class that it configures"),
        ({"_target_": "trustml_cli.nowhere.It"}, "task._target_: cannot find trustml_cli.nowhere.It"),
        (
            {"_target_": "os.system"},
            "task._target_: os.system is no code of trustml's; if you trust it, add allow=[os]",
        ),
        ({"_target_": "trustml_clip.It"}, "task._target_: trustml_clip.It is no code of trustml's"),
        ({"_target_": "pathlib.Nothing"}, "task._target_: cannot find pathlib.Nothing"),
        ({"_target_": "pathlib.Path"}, "task._target_: pathlib.Path is not a dataclass"),
        ({"_target_": f"{__name__}.thing"}, f"task._target_: {__name__}.thing is not a dataclass"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_would_be_right(changes, words):
    with pytest.raises(InputError) as caught:
        thing(**changes)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_keys_at_the_top_of_the_config_are_named_without_a_dot():
    with pytest.raises(InputError, match=r"^count: must be a whole number, got 'x'"):
        build_as(Thing, {**GOOD, "count": "x"}, key="")


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("epsilom", ["steps", "epsilon"], "did you mean 'epsilon'?"),
        ("PGD", ["fgsm", "pgd"], "did you mean 'pgd'?"),
        ("lamda", ["Lambda"], "did you mean 'Lambda'?"),
        ("epsilom", ["steps", "norm"], "there are steps, norm"),
        ("epsilom", [], "there are none here"),
    ],
)
def test_the_nearest_name_is_offered_or_all_there_are(name, known, words):
    assert nearest(name, known) == words


def test_a_key_that_is_a_python_word_belongs_to_the_field_with_an_underscore():
    @dataclass(frozen=True)
    class Game:
        lambda_: list[float]
        rounds_: int

    assert build_as(Game, {"lambda": 3, "rounds_": 1}, "task") == Game([3.0], 1)
    for values, words in (
        ({"lambda_": 3, "rounds_": 1}, "task.lambda_: no such key; did you mean 'lambda'?"),
        ({"rounds_": 1}, "task.lambda: needs a value"),
        ({"lambda": "much", "rounds_": 1}, "task.lambda: must be a number, got 'much'"),
        ({"lambda": [[1]], "rounds_": 1}, "task.lambda: must be a list of single values"),
    ):
        with pytest.raises(InputError) as caught:
            build_as(Game, values, "task")
        assert str(caught.value).startswith(words)
