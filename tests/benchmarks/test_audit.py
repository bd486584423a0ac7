"""The benchmark of the audit asks peers what the audit asks."""

from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.audit import PEERS, QUERIES, TARGETS, ask, network


def test_peers_are_asked_axes_of_the_audit_with_its_budgets() -> None:
    items = yaml.safe_load(Path("conf/study/audit.yaml").read_text(encoding="utf-8"))["items"]
    assert set(PEERS) < set(items)
    for axis, epsilon in (("robustness_linf", 0.1), ("robustness_l2", 0.5)):
        asked = {f"attack.targets={TARGETS}", f"attack.queries={QUERIES}", f"task.epsilon={epsilon}", "task.images=200"}
        assert asked <= set(items[axis]["run"])
    assert "task.epsilon=0.1" in items["universal"]["run"]
    assert {"task.images=200", "physical.area=0.1"} <= set(items["physical"]["run"])
    assert "task.queries=[30,100,300]" in items["extraction"]["run"]


@pytest.mark.faults
@pytest.mark.parametrize("axis", ["accuracy", "unseen", "memory", "explanations"])
def test_a_peer_answers(axis: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(network().state_dict(), tmp_path / "network.pt")
    ask(axis, tmp_path)
    assert f"{axis}: " in capsys.readouterr().out
