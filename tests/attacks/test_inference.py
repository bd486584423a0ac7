"""Answers and gradients that are not what one expects: NaN, infinity, other number formats, and none at all."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice
from trustml_cli.attacks.attack import Access, Attack, Norm, input_gradient
from trustml_cli.attacks.checks import check_finite, check_gradients
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.measure import attack_curve, predict_images, within_budget
from trustml_cli.attacks.universal_base import answers, fooled
from trustml_cli.config.instantiate import build
from trustml_cli.models.inference import NoGradient, gives_gradients, logits_of, predicted_classes

INFINITE = math.inf


class Says(nn.Module):
    """The logits that `forward` makes of the scores of `model`."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.says = model, forward
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.says(self.model(x))


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above one half; no answer where it is above 0.7."""

    def __init__(self, instead: float) -> None:
        super().__init__()
        self.instead = instead

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        logits = torch.stack([0.5 - mean, mean - 0.5], 1)
        return logits.where(mean[:, None] < 0.7, self.instead)


GREY = torch.tensor([0.1, 0.4, 0.45, 0.75]).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
DARK = torch.zeros(4, dtype=torch.long)


def attacks(**changes: object) -> list[Attack]:
    quick = {
        "steps": 4, "queries": 20, "rounds": 2, "constant": 10.0, "lr": 0.3, "epochs": 2, "labels": 40,
        "training_images": 20, "restarts": 2,
    }  # fmt: skip
    made = []
    for name in ("pgd", "mifgsm", "apgd_t", "deepfool", "fab", "cw", "square", "universal", "substitute"):
        node = choice("attack", name)
        settings = {key: value for key, value in (quick | changes).items() if key in node}
        made.append(build(choice("attack", name, **settings), "attack"))
    return made


@pytest.mark.parametrize("instead", [math.nan, INFINITE])
def test_an_image_without_an_answer_is_not_fooled(instead: float) -> None:
    curve = attack_curve(Brightness(instead), FGSM(norm=Norm.linf, target=None), [(GREY, DARK)], [0.15, 0.28], keep=4)
    assert curve.clean.predicted.tolist() == [0, 0, 0, -1]
    assert curve.clean.confidence[3] == 0
    one, two = curve.attacked
    assert one.answers.predicted.tolist() == [0, 1, 1, -1]
    assert two.answers.predicted.tolist() == [0, 1, 0, -1]  # 0.45 became 0.73, which counts as the image before it
    assert two.unanswered.tolist() == [False, False, True, True]
    assert torch.equal(two.examples[2:], GREY[2:])
    assert [size.item() for size in two.sizes[Norm.linf]] == pytest.approx([0.28, 0.28, 0, 0])
    finding = check_finite(curve)
    assert finding.passed is False
    assert finding.figure.startswith("of 4 images 1 have no answer before the attack and up to 2 after it, ")


def test_answers_and_gradients_that_are_numbers_pass() -> None:
    curve = attack_curve(Brightness(0.0), FGSM(norm=Norm.linf, target=None), [(GREY[:3], DARK[:3])], [0.1], keep=0)
    assert check_finite(curve).passed


@pytest.mark.parametrize("norm", [Norm.linf, Norm.l2])
def test_a_pixel_without_a_gradient_leaves_those_of_the_others(norm: Norm) -> None:
    class Root(nn.Module):
        """Class 1 gains from the roots of the first two pixels, whose slopes at 0 are NaN and infinite."""

        def forward(self, x: Tensor) -> Tensor:
            first, second, third, fourth = x.flatten(1).T
            score = torch.where(first > 0, first.sqrt(), 0.0) + second.sqrt() + 3 * third - 4 * fourth
            return torch.stack([torch.zeros_like(score), score - 0.1], 1)

    x, y = torch.tensor([[[[0.0, 0.0], [0.5, 0.5]]]]), torch.tensor([0])
    curve = attack_curve(Root(), FGSM(norm=norm, target=None), [(x, y)], [0.1], keep=1)
    expected = torch.tensor([0, 4.0, 3.0, -4.0])  # infinity counts as the largest of the others
    expected = 0.1 * expected.sign() if norm is Norm.linf else 0.1 * expected / expected.norm()
    torch.testing.assert_close((curve.attacked[0].examples - x).flatten(), expected)
    assert curve.attacked[0].broken_gradients == 1
    assert check_finite(curve).passed is False


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: type(attack).__name__)
def test_attacks_go_past_images_without_an_answer(attack: Attack, model: nn.Module) -> None:
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    bright = x.mean((1, 2, 3)).quantile(0.7).item()
    holes = Says(model, lambda logits: logits)
    holes.register_forward_hook(
        lambda _, inputs, logits: logits.where(inputs[0].mean((1, 2, 3))[:, None] < bright, math.nan)
    )
    torch.manual_seed(0)
    curve = attack_curve(holes, attack.fit(holes, x, y), [(x, y)], [0.2 if attack.norm is Norm.linf else 1.0], 20)
    attacked = curve.attacked[0]
    assert (curve.clean.predicted == -1).sum() == 6
    assert within_budget(attacked.examples, x, attacked.epsilon, attack.norm)
    assert (attacked.answers.predicted[curve.clean.predicted >= 0] >= 0).all()
    fell = (attacked.answers.predicted != y) & curve.initially_right
    assert torch.equal(model(attacked.examples).argmax(1)[fell], attacked.answers.predicted[fell])
    assert fell.any() or isinstance(attack, type(attacks()[-1]))  # there is no time for a good substitute


FORMATS = [torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: type(attack).__name__)
def test_logits_may_come_in_any_number_format(attack: Attack, dtype: torch.dtype, model: nn.Module) -> None:
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    cast = Says(model, lambda logits: logits.to(dtype))
    assert logits_of(cast, x).dtype is torch.float32
    torch.manual_seed(0)
    curve = attack_curve(cast, attack.fit(cast, x, y), [(x, y)], [0.2], keep=20)
    assert curve.attacked[0].examples.dtype is torch.float32
    assert curve.clean.confidence.dtype is torch.float32
    assert check_finite(curve).passed


def test_classes_are_read_off_the_logits_and_not_off_their_softmax(model: nn.Module) -> None:
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    faint = Says(model, lambda logits: 1e-12 * logits)
    assert len(model(x).argmax(1).unique()) > 1
    assert torch.equal(predict_images(faint, x).predicted, model(x).argmax(1))
    assert faint(x).softmax(1).argmax(1).unique().tolist() == [0]


def test_what_has_no_answer() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [INFINITE, 1.0], [-INFINITE, 1.0], [-INFINITE, -INFINITE]])
    identity = nn.Identity()
    assert predicted_classes(logits_of(identity, logits)).tolist() == [1, -1, -1, 1, -1]
    assert answers(identity, logits).tolist() == [1, -1, -1, 1, -1]
    moved = torch.tensor([[0.0, 0.0]])
    assert not fooled(identity, logits[1:2], moved, torch.tensor([0])).any()
    assert not fooled(identity, logits[:1], moved, torch.tensor([-1])).any()


@pytest.mark.parametrize(
    ("answer", "got"), [(lambda x: x[:, 0], r"\[2\]"), (lambda x: (x, x), "tuple"), (lambda x: x[:1], r"\[1, 3\]")]
)
def test_what_is_no_table_of_logits_is_refused(answer: Callable[[Tensor], Tensor], got: str) -> None:
    with pytest.raises(ValueError, match=rf"logits \[images, classes\], got {got} for 2 images$"):
        logits_of(Says(nn.Identity(), answer), torch.rand(2, 3))


class Detached(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits


def quantised(model: nn.Module) -> nn.Module:
    found: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval())
    return found


def constant(model: nn.Module) -> nn.Module:
    return Says(nn.Identity(), lambda x: torch.tensor([[1.0, 2.0, 0.0]]).expand(len(x), 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("without", [Detached, quantised, constant])
def test_networks_without_gradients(without: Callable[[nn.Module], nn.Module], model: nn.Module) -> None:
    victim = without(model)
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    y = victim(x).argmax(1)
    assert gives_gradients(model, x[:1])
    assert not gives_gradients(victim, x[:1])
    torch.manual_seed(0)
    for attack in attacks():
        if attack.access is Access.query:
            curve = attack_curve(victim, attack.fit(victim, x, y), [(x, y)], [0.3], keep=0)
            assert curve.zero_gradient is None
            assert check_gradients(curve).passed is None
            assert curve.attacked[0].gradients == 0
    with pytest.raises((NoGradient, RuntimeError)):
        input_gradient(victim, x, y)
