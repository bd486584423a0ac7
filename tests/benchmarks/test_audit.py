"""The benchmark of the audit asks peers what the audit asks."""

from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.audit import PEERS, ask, network


def test_every_axis_that_a_peer_is_asked_is_one_of_the_audit() -> None:
    items = yaml.safe_load(Path("conf/study/audit.yaml").read_text(encoding="utf-8"))["items"]
    assert set(PEERS) < set(items)


@pytest.mark.faults
@pytest.mark.parametrize("axis", ["accuracy", "unseen", "memory", "explanations"])
def test_a_peer_answers(axis: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(network().state_dict(), tmp_path / "network.pt")
    ask(axis, tmp_path)
    assert f"{axis}: " in capsys.readouterr().out
