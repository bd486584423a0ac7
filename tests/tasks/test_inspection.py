"""Which detectors of backdoors support a data set."""

import pytest

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.inspection import supporting


def test_detectors_that_two_classes_are_too_few_for_are_left_out_unless_they_were_named(tiny_data: Dataset) -> None:
    family = {name: build(choice("suspicion", name), "suspicion") for name in choices("suspicion")}
    assert "neural_cleanse" in family
    assert list(supporting(None, family, tiny_data)) == [name for name in family if name != "neural_cleanse"]
    assert list(supporting(["strip"], family, tiny_data)) == ["strip"]
    with pytest.raises(InputError, match=r"^task\.suspicion: neural_cleanse needs 3 classes, not 2$"):
        supporting(["strip", "neural_cleanse"], family, tiny_data)
    only = {"neural_cleanse": family["neural_cleanse"]}
    with pytest.raises(InputError, match=r"no detector supports this data set: neural_cleanse needs 3 classes"):
        supporting(None, only, tiny_data)
