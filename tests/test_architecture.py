"""The rules of docs/architecture.md: imports point down, methods stay pure, handlers do not import handlers."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import trustml_cli
from tests.configs import choices, composed

PACKAGE = Path(trustml_cli.__file__).parent
FAMILIES = (
    "attacks", "backdoor_detection", "backdoors", "calibration", "corruptions", "defences", "explainers", "extraction",
    "fairness", "forgetting", "ood", "physical", "privacy",
)  # fmt: skip
ABOVE_TRAINING = ("backdoors", "calibration", "defences", "forgetting", "privacy")
FLOORS = (
    ("__main__", "api"),
    ("cli",),
    ("job",),
    ("sweeps", "tasks"),
    ("results",),
    ("plots",),
    ABOVE_TRAINING,
    ("training", *(family for family in FAMILIES if family not in ABOVE_TRAINING)),
    ("config", "data", "models"),
    ("metrics", "system"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MACHINERY = {"hydra", "omegaconf", "pandas", "matplotlib", "jinja2", "filelock"}  # none of it in a method
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py")


@cache
def imports(file: Path) -> list[str]:
    """The modules that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found.append(node.module or "")
    return found


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def room_of(module: str) -> str:
    return module.split(".")[1]


def ours(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, but for those of its own room."""
    for name in imports(file):
        if name.startswith("trustml_cli.") and room_of(name) != room_of(module_of(file)):
            yield name


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module_of(file)) for file in FILES}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_down(file: Path) -> None:
    mine = FLOOR[room_of(module_of(file))]
    up = [name for name in ours(file) if FLOOR[room_of(name)] <= mine]
    assert not up, f"{module_of(file)} imports {up}, on its own floor or above"


def test_no_circle_between_modules() -> None:
    waiting = {module_of(file): {name for name in imports(file) if name.startswith("trustml_cli.")} for file in FILES}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"a circle among {sorted(waiting)}"


@pytest.mark.parametrize("file", [file for file in FILES if room_of(module_of(file)) in FAMILIES], ids=module_of)
def test_a_method_needs_no_machinery(file: Path) -> None:
    assert MACHINERY.isdisjoint(name.partition(".")[0] for name in imports(file))


def test_one_module_knows_the_private_parts_of_hydra_and_its_plugins() -> None:
    private = [module_of(file) for file in FILES if any(re.match(r"hydra\._|hydra_plugins", n) for n in imports(file))]
    assert private == ["trustml_cli.config.hydra_internals"]


def test_a_handler_imports_no_handler() -> None:
    handlers = {composed(f"task={task}").task._target_.rpartition(".")[0] for task in choices("task")}
    wrong = {
        name: handlers & {*imports(PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py"))} for name in handlers
    }
    assert not any(wrong.values()), wrong
