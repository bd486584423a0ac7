"""One's own network by the name of its factory."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers import FRESH
from trustml_cli.models.custom import Custom
from trustml_cli.models.model import InputSpec, Normalization

IMAGES = InputSpec((3, 6, 6), 4, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
SOURCE = """
from torch import nn

not_a_function = 3

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 4))

def told(shape, num_classes, width, *, slope=0.0):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], width),
                         nn.LeakyReLU(slope), nn.Linear(width, num_classes))

def broken():
    raise RuntimeError("no such layer")

def leaves():
    raise SystemExit(3)

def key():
    return {}["x"]

def no_network():
    return "a string"
"""


@pytest.fixture(autouse=True)
def modules_beside_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(SOURCE)
    (tmp_path / "own_copied.py").write_text(SOURCE)
    (tmp_path / "own_edited.py").write_text(SOURCE.replace("nn.LeakyReLU(slope)", "nn.Tanh()"))
    (tmp_path / "own_exits.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "own_typo.py").write_text("def plain(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # taken back after each test


def custom(factory: str, **arguments: Any) -> Custom:
    return Custom(factory=factory, arguments=arguments, normalization=Normalization.none, **FRESH)


def test_the_factory_is_found_beside_the_user_and_its_network_is_returned() -> None:
    network = custom("own_networks:plain").build(IMAGES)
    assert network.network[1].weight.shape == (4, 108)
    assert network(torch.rand(2, 3, 6, 6)).shape == (2, 4)


def test_the_factory_is_told_shape_classes_and_the_arguments_of_the_config() -> None:
    network = custom("own_networks:told", width=7, slope=0.2).build(IMAGES)
    widths = [(layer.in_features, layer.out_features) for layer in (network.network[1], network.network[3])]
    assert widths == [(108, 7), (7, 4)]
    assert network.network[2].negative_slope == 0.2


def test_arguments_overrule_what_the_factory_would_be_told() -> None:
    network = custom("own_networks:told", width=7, num_classes=5).network(IMAGES)
    assert network[3].out_features == 5


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("own_networks.plain", "must be package.module:function, got 'own_networks.plain'"),
        (":plain", "cannot import "),
        ("own_absent:plain", r"cannot import own_absent \(ModuleNotFoundError: No module named 'own_absent'\)"),
        ("own_typo:plain", r"cannot import own_typo \(SyntaxError: invalid syntax"),
        ("own_exits:plain", r"cannot import own_exits \(SystemExit: 0\)"),
        ("own_networks:fancy", "own_networks has no function 'fancy'"),
        ("own_networks:not_a_function", "own_networks has no function 'not_a_function'"),
    ],
)
def test_a_factory_that_cannot_be_found_is_refused_at_once(factory: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^factory: {message}"):
        custom(factory)


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("own_networks:broken", {}, r"own_networks:broken failed \(RuntimeError: no such layer\)"),
        ("own_networks:told", {}, "own_networks:told failed .*'width'"),
        ("own_networks:plain", {"width": 3}, "own_networks:plain failed .*'width'"),
        ("own_networks:leaves", {}, r"own_networks:leaves failed \(SystemExit: 3\)"),
        ("own_networks:key", {}, r"own_networks:key failed \(KeyError: 'x'\)"),
        ("own_networks:no_network", {}, "own_networks:no_network returned str, not a torch.nn.Module"),
    ],
)
def test_a_factory_that_fails_is_refused_by_name(factory: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^factory: {message}"):
        custom(factory, **arguments).build(IMAGES)


def test_a_network_of_another_shape_is_refused_with_the_shape() -> None:
    with pytest.raises(ValueError, match="cannot take inputs of shape 1×6×6"):
        custom("own_networks:plain").build(InputSpec((1, 6, 6), 4, mean=(0.5,), std=(1.0,)))


SHADOWED = """
def base():
    import own_later
    return own_later.network()
"""


@pytest.mark.parametrize("name", ["test", "this"])
def test_a_module_beside_the_user_comes_before_python_s_own(name: str, tmp_path: Path) -> None:
    """Python has modules called test and this, which nothing here has loaded."""
    sys.modules.pop(name, None)
    (tmp_path / f"{name}.py").write_text(SHADOWED)
    (tmp_path / "own_later.py").write_text("from torch import nn\n\ndef network(): return nn.Flatten()\n")
    try:
        assert isinstance(custom(f"{name}:base").network(IMAGES), nn.Flatten)
        assert sys.modules[name].__file__ == str(tmp_path / f"{name}.py")
        assert sys.path[0] != str(tmp_path), "what is imported later could be shadowed"
    finally:
        for each in (name, "own_later"):
            sys.modules.pop(each, None)


def test_a_module_with_the_name_of_one_in_use_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text(SOURCE)
    with pytest.raises(ValueError, match=r"random\.py has the name of a module in use; rename it\)$"):
        custom("random:plain")
