"""What made a network: fields that matter, the code of the user, and nothing that depends on who else is there."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from tests.system.parts import Colour, Own, Part, Whole
from trustml_cli.attacks.attack import Norm
from trustml_cli.defences.free import FreeTraining
from trustml_cli.system import recipe
from trustml_cli.system.recipe import code_of, recipe_of
from trustml_cli.training.store import as_built

Write = Callable[..., None]


@dataclass(frozen=True)
class Names:
    names_code: ClassVar = ("factory",)

    factory: str


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes modules of the user's, and forgets those that were loaded: the next process begins anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    of_user = recipe.loaded  # without the tests, whose hundreds of files would be read
    monkeypatch.setattr(recipe, "loaded", lambda: [name for name in of_user() if name.partition(".")[0] != "tests"])
    known = set(sys.modules)

    def forget() -> None:
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
                del sys.modules[name]

    def written(**sources: str) -> None:
        forget()
        for name, source in sources.items():
            file = tmp_path / f"{name.replace('__in__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
        importlib.invalidate_caches()

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield written
    forget()


def key(name: str = "own_main") -> object:
    """What is known of the module after it was loaded, as for a network that it makes."""
    importlib.import_module(name)
    return code_of([name])


def test_an_object_is_its_class_and_the_fields_that_matter(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    thing = Whole(Part(3), Colour.red, tmp_path / "a.png", [1.0, 2.0], workers=4)
    facts = recipe_of(thing)
    assert facts["is"] == "tests.system.parts.Whole"
    assert facts["part"]["is"] == "tests.system.parts.Part"
    assert (facts["part"]["size"], facts["colour"], facts["sizes"]) == (3, "red", [1.0, 2.0])
    assert "workers" not in facts
    assert recipe_of(replace(thing, workers=8)) == facts
    assert recipe_of(replace(thing, part=Part(4))) != facts
    (tmp_path / "b.png").write_bytes(b"one")
    assert recipe_of(replace(thing, file=tmp_path / "b.png")) == facts, "the name of a file says nothing"
    (tmp_path / "b.png").write_bytes(b"two")
    assert recipe_of(replace(thing, file=tmp_path / "b.png")) != facts


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(TypeError, match="object: says nothing of itself"):
        recipe_of({"a": [object()]})


def test_how_many_images_are_looked_at_is_no_part_of_a_defence() -> None:
    few = FreeTraining(norm=Norm.linf, epsilon=0.1, monitor_images=8, replays=2)
    assert recipe_of(few) == recipe_of(replace(few, monitor_images=200)) != recipe_of(replace(few, replays=3))


IMPORTS = {
    "import own_helper": "a module",
    "from own_helper import WIDTH": "a number of it",
    "from own_helper import *": "all of it",
    "def network():\n    import own_helper": "when it is called, and not before",
    "import importlib\nhelper = importlib.import_module('own_helper')": "by a name",
    "import importlib\nhelper = importlib.import_module('own_' + 'helper')": "by a name that is computed",
    "import own_between": "through another",
}


@pytest.mark.parametrize(
    "imports",
    [  # a name that is computed has every module of the process read: seconds
        pytest.param(text, id=name, marks=[pytest.mark.faults] if name.endswith("computed") else [])
        for text, name in IMPORTS.items()
    ],
)
def test_another_helper_is_another_network(imports: str, write: Write) -> None:
    other = {"own_between": "from own_helper import WIDTH", "own_else": "X = 1"}
    write(own_main=imports, own_helper="WIDTH = 2", **other)
    first = key()
    write()
    assert key() == first, "the same code in another process"
    write(own_else="X = 2")
    assert key() == first or "' + '" in imports, "what it does not import"
    write(own_helper="WIDTH = 20")
    assert key() != first


def test_a_package_counts_with_what_it_runs_and_imports_from_within(write: Write) -> None:
    parts = {"own_zoo__in____init__": "", "own_zoo__in__net": "from .blocks import block", "own_zoo__in__plots": ""}
    write(**parts, own_zoo__in__blocks="block = 1")
    first = key("own_zoo.net")
    for name, counts in (("blocks", True), ("__init__", True), ("plots", False)):
        write(**parts, own_zoo__in__blocks="block = 1")
        write(**{f"own_zoo__in__{name}": "block = 2"})
        assert (key("own_zoo.net") != first) is counts, name


def test_the_function_that_an_object_names_counts(write: Write) -> None:
    write(own_main="WIDTH = 2")
    first = recipe_of(Names("own_main:network"))
    assert "own_main" in first["code"]
    write(own_main="WIDTH = 20")
    assert recipe_of(Names("own_main:network")) != first


def test_what_is_loaded_beside_changes_nothing(write: Write) -> None:
    write(own_main="import own_helper", own_helper="", own_else="")
    first = key()
    importlib.import_module("own_else")
    assert key() == first


def test_an_edit_does_not_change_what_runs_already(write: Write, tmp_path: Path) -> None:
    write(own_main="import own_helper", own_helper="WIDTH = 2")
    first = key()
    (tmp_path / "own_helper.py").write_text("WIDTH = 20")
    assert key() == first, "the old code is what this process goes on to run"
    write()
    assert key() != first


def test_classes_called_alike_in_two_modules_are_two(write: Write) -> None:
    source = "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    size: int\n"
    write(own_main=source, own_else=source)
    one, other = (importlib.import_module(name).Mine(3) for name in ("own_main", "own_else"))
    assert recipe_of(one) != recipe_of(other)
    assert recipe_of(one)["is"] == "own_main.Mine"


def test_a_base_class_counts_and_our_own_code_does_not(write: Write) -> None:
    write(own_base="class Base:\n    pass\n", own_main="import own_base\nclass Mine(own_base.Base):\n    pass\n")
    assert code_of(["own_main"]).keys() == {"own_main", "own_base"}
    assert code_of(["trustml_cli.models.dense", "torch.nn", "dataclasses", "json"]) == {}
    write(own_main="import yaml")
    assert code_of(["own_main"])["yaml"].lower().startswith("pyyaml ")


def test_what_a_network_is_built_of_is_noticed_though_no_field_says_it() -> None:
    torch.manual_seed(0)
    first, second = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    assert as_built(first)["layers"] == as_built(second)["layers"]
    assert as_built(first)["weights"] != as_built(second)["weights"], "weights from a file, say"
    second.load_state_dict(first.state_dict())
    assert as_built(first) == as_built(second)
    with torch.no_grad():
        second[0].weight *= 1 + 1e-7  # as another number of threads may have it
    assert as_built(first) == as_built(second)
    assert as_built(nn.Sequential(first[0], nn.Tanh())) != as_built(first)
    assert "tests.system.parts" in as_built(nn.Sequential(Own()))["code"]
