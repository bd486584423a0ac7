"""What handlers are given."""

import pytest

from tests.helpers import MakeContext
from trustml_cli.tasks.context import Context


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    """A run of a task on `tiny_data`, with seed 0."""
    return make_context()
