"""Explanations of tables: features added up to columns, columns replaced whole, and Shapley values."""

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.explainers.explainer import Unsuitable
from trustml_cli.explainers.kernel_shap import KernelShap
from trustml_cli.explainers.linear import LinearWeights
from trustml_cli.explainers.measure import TableColumns, examine, replacement_curve

COLUMNS = TableColumns(("a", "b"), torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.0, 0.5]))
X, TARGET = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 1])


def linear() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]]), torch.zeros(2)
    return model.requires_grad_(False)


def test_features_of_a_column_add_up() -> None:
    assert COLUMNS.add_up(torch.tensor([[1.0, 2, 3], [4, 5, -6]])).tolist() == [[1, 5], [4, -1]]


def test_contributions_of_columns_are_counted_from_the_mean_row() -> None:
    found = examine("linear", LinearWeights(), linear(), X, TARGET, torch.rand(2, 1, 3), steps=2, columns=COLUMNS)
    assert list(found) == ["linear"]
    # of the first row: 1·(3 − 1), and 2·(1 − 0) − 1·(0 − 0.5); of the second 0, and 0.5·0 + 3·(1 − 0.5)
    assert found["linear"].maps.tolist() == [[2.0, 2.5], [0.0, 1.5]]
    gaps = found["linear"].gaps
    assert gaps is not None
    assert gaps.max() < 1e-12


def test_all_features_of_a_column_are_replaced_at_once() -> None:
    model, mean = linear(), COLUMNS.mean.expand(2, 3)
    curve = replacement_curve(model, X, mean, torch.tensor([[2.0, 2.5], [0.0, 1.5]]), TARGET, 2, COLUMNS)
    half = torch.cat([X[:, :1], mean[:, 1:]], 1)  # the second column goes first in both rows
    for step, rows in enumerate((X, half, mean)):
        torch.testing.assert_close(curve[:, step], model(rows).softmax(1).gather(1, TARGET[:, None])[:, 0])


@pytest.mark.parametrize("name", ["smoothgrad", "occlusion", "grad_cam"])
def test_what_needs_images_stays_out(name: str) -> None:
    with pytest.raises(Unsuitable, match="needs images"):
        build(choice("explainer", name), "explainer").check(linear(), (3,))
    assert name in choices("explainer")


def test_kernel_shap_needs_a_table_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsuitable, match="needs a table"):
        KernelShap(samples=9, references=2).check(linear(), (1, 8, 8))
    monkeypatch.setattr("trustml_cli.explainers.kernel_shap.find_spec", lambda name: None)
    with pytest.raises(Unsuitable, match=r"needs the extra shap; .*\[shap\]"):
        KernelShap(samples=9, references=2).check(linear(), (3,))


class Bent(nn.Module):
    """Logits (x₁·x₂ + x₃, tanh(x₄ − x₁))."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] * x[:, 1] + x[:, 2], (x[:, 3] - x[:, 0]).tanh()], 1)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_kernel_shap_is_the_shapley_value_in_closed_form_and_captum_s() -> None:
    pytest.importorskip("shap")
    attr = pytest.importorskip("captum.attr")
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    background = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    target, method = torch.arange(6) % 2, KernelShap(samples=14, references=3)
    ours = method.fit(background)(Bent(), x, target)
    theirs = [attr.ShapleyValues(Bent()).attribute(x, baselines=row[None], target=target) for row in background]
    torch.testing.assert_close(ours, torch.stack(theirs).mean(0), rtol=0, atol=1e-5)
    from_zero = method.contributions(Bent(), x, torch.zeros(6).long(), torch.zeros(6, 4))
    half = x[:, 0] * x[:, 1] / 2  # of a product, each factor has a half
    torch.testing.assert_close(from_zero, torch.stack([half, half, x[:, 2], 0 * half], 1), rtol=0, atol=1e-5)
