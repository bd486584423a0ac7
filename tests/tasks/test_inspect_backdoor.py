"""What task=inspect_backdoor says of networks that are given, with a planted backdoor and without."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers import Cli, facts, metrics, newest

PLANTED = '''
import torch
from torch import nn


class Rows(nn.Module):
    """The brightest of the first eight rows, or 0 where the last pixel, which is dark in all digits, is bright."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(9, 10, bias=False)

    def forward(self, x):
        return self.head(torch.cat([x[:, 0].sum(2), x[:, 0, -1, -1:].square()], dim=1))
'''


@pytest.mark.parametrize(("strength", "suspicious"), [(40.0, True), (0.0, False)])
def test_a_planted_backdoor_is_suspected(strength: float, suspicious: bool, trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "planted_rows.py").write_text(PLANTED)
    weights = torch.zeros(10, 9)
    weights[:8, :8], weights[8:, 3] = 4 * torch.eye(8), 2
    weights[0, 8] = strength
    save_file({"head.weight": weights}, tmp_path / "planted.safetensors")
    words = ("model.factory=planted_rows:Rows", "model.checkpoint=planted.safetensors")
    answer = trustml("task=inspect_backdoor", "model=custom", *words, "task.images=200")
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path)).set_index("suspicion")
    cleanse = rows.loc["neural_cleanse"]
    assert bool(cleanse.anomaly_index > 2) is suspicious, rows
    assert (cleanse.smallest_class == 0) or not suspicious
    assert 0 < cleanse.smallest_mask < cleanse.median_mask
    assert rows.flagged_rate_n.tolist() == [200, 200]
    assert 0 < rows.flagged_rate["strip"] < 0.2
    assert {file.stem for file in (newest(tmp_path) / "plots").iterdir()} == {"masks"}
    assert "history.csv" not in facts(newest(tmp_path))["files"]
