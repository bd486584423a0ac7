import re
from pathlib import Path

import pytest

from trustml_cli.results.provenance import git_commit, provenance
from trustml_cli.system.distribution import own_version


def test_the_commit_is_that_of_the_checkout_not_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = git_commit()
    monkeypatch.chdir(tmp_path)
    assert here is None or re.fullmatch(r"[0-9a-f]{40}", here)
    assert provenance()["git_commit"] == here
    assert provenance()["trustml"] == own_version()


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
