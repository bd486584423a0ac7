"""Several choices of one group at once: built into a dictionary, and picked from by name."""

from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf

from trustml_cli.config.instantiate import build, chosen, is_family
from trustml_cli.config.trust import Permissions
from trustml_cli.system.errors import InputError


@dataclass(frozen=True)
class Thing:
    size: int


def thing(size: object) -> dict[str, object]:
    return {"_target_": f"{__name__}.Thing", "size": size}


def test_a_node_of_described_objects_is_a_dictionary_of_them_in_order() -> None:
    built = build(OmegaConf.create({"small": thing(1), "big": thing(9)}), "thing", Permissions([f"allow=[{__name__}]"]))
    assert built == {"small": Thing(1), "big": Thing(9)}
    assert list(built) == ["small", "big"]


def test_a_wrong_value_of_a_member_is_named_with_its_path() -> None:
    with pytest.raises(InputError, match=r"^thing\.big\.size: must be a whole number, got 'x'$"):
        build(OmegaConf.create({"small": thing(1), "big": thing("x")}), "thing", Permissions([f"allow=[{__name__}]"]))


@pytest.mark.parametrize(
    ("node", "yes"),
    [(thing(1), False), ({"small": thing(1)}, True), ({"a": 1}, False), ({"a": thing(1), "b": 2}, False), ({}, True)],
)
def test_a_node_is_a_family_where_it_holds_objects_and_nothing_else(node: dict[str, object], yes: bool) -> None:
    assert is_family(OmegaConf.create(node)) is yes


def test_the_member_that_names_nothing_is_told_from_the_others() -> None:
    with pytest.raises(InputError, match=r"^thing\.big: this choice names no _target_"):
        build(OmegaConf.create({"small": thing(1), "big": {"size": 3}}), "thing", Permissions([f"allow=[{__name__}]"]))


def test_members_are_picked_once_in_the_order_of_their_names() -> None:
    family = {"a": 1, "b": 2, "c": 3}
    assert list(chosen(["c", "a", "c"], family, "task.score").items()) == [("c", 3), ("a", 1)]


@pytest.mark.parametrize(
    ("names", "words"),
    [(["smal"], "did you mean 'small'?"), (["x"], "there are small, big"), ([], "at least one name")],
)
def test_a_name_that_is_not_there_is_answered_with_those_that_are(names: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen(names, {"small": 1, "big": 2}, "task.score")
    assert str(caught.value).startswith("task.score: ")
    assert words in str(caught.value)
