"""Whether a robust accuracy is reliable: the checks of one run, the verdict, and the recommended next run."""

import logging
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import nn

from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.attacks.checks import (
    BROKEN,
    NOT_NUMBERS,
    RANDOMISED,
    WEAK,
    CheckResult,
    Comparison,
    check_finite,
    check_gradients,
    check_monotone,
    check_steady,
    telling_epsilon,
    verdict,
)
from trustml_cli.attacks.comparison import AttackComparison, is_unconstrained, survived, with_more_effort
from trustml_cli.attacks.fmn import FMN
from trustml_cli.attacks.measure import predict_images, within_budget
from trustml_cli.attacks.robustness_curve import RobustnessCurve
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.attacks.standard import Standard
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import random_indices
from trustml_cli.models.inference import gives_gradients
from trustml_cli.system.hardware import seeded
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.evaluation import RobustnessEvaluation
from trustml_cli.training.predict import BATCH

log = logging.getLogger(__name__)

STEADY = 100  # images that the network is asked about twice


def judge_robustness(evaluation: RobustnessEvaluation, references: Mapping[str, Attack], images: int) -> None:
    """Record the checks and the verdict of an evaluation; the `references` attack `images` of its images."""
    context, curve, network = evaluation.context, evaluation.curve, evaluation.network
    findings = [check_gradients(curve), check_finite(curve), check_monotone(curve)]
    findings += check_saved(context, curve, network, evaluation.attack.norm)
    findings.append(check_steady(network, curve.examples[:STEADY].to(context.hardware.device)))
    if findings[1].passed is False:
        log.warning("%s: %s", NOT_NUMBERS, findings[1].figure)
    compared = compare_attacks(evaluation, references, images)
    for finding in (*findings, *compared.findings):
        context.record.check(finding.name, finding.passed, finding.figure)
    said = verdict(findings, compared)
    judged = ". ".join(part for part in (said, recommendation(context, evaluation.attack, said, compared)) if part)
    context.record.note(verdict=judged)
    log.info("verdict: %s", judged)


def compare_attacks(evaluation: RobustnessEvaluation, references: Mapping[str, Attack], images: int) -> Comparison:
    """Compare the attack with the references on `images` of its images, at the epsilon of `telling_epsilon`."""
    context, curve, attack = evaluation.context, evaluation.curve, evaluation.attack
    epsilon = telling_epsilon(curve)
    if not images or epsilon is None:
        return Comparison()
    attacked = next(one for one in curve.attacked if one.epsilon == epsilon)
    stands = survived(attack, attacked.answers.predicted, curve.labels)
    where = random_indices(evaluation.images, images, context.seed)
    shown = list(batches(evaluation.images.subset(where), BATCH, context.hardware.device))
    if not gives_gradients(evaluation.network, shown[0][0][:1]):
        references = {
            role: reference for role, reference in references.items() if reference.access is not Access.white_box
        }
    with seeded(context.seed):
        share = float(stands.double().mean())
        bench = AttackComparison(
            evaluation.network, shown, epsilon, attack, stands[where], share, curve.asked, curve.clean[where]
        )
        return bench.compare(references)


def recommendation(context: Context, attack: Attack, said: str, compared: Comparison) -> str:
    """The run to recommend for a reportable robust accuracy; empty where this is one or no attack would help."""
    searches = isinstance(attack, SmallestPerturbation) or attack.optimal
    one_step = attack.access is Access.white_box and with_more_effort(attack) is None and not searches
    weak = any(one.passed is False and one.speaks_of == WEAK for one in compared.findings)
    if not (one_step or weak) or said == "trustworthy":
        return ""
    task = "" if context.record.choices["task"] in ("attack", "robust_train") else "task=attack "
    norm = attack.norm.value
    if not is_unconstrained(attack):
        better = "raise attack.steps"
    elif compared.optimal:
        better = f"run `{task}attack=linear attack.norm={norm}` for the optimum of this linear model"
    elif isinstance(attack, Standard if attack.norm in Standard.norms else FMN):
        better = "raise attack.steps"
    elif attack.norm not in Standard.norms:
        better = f"run `{task}attack=fmn attack.norm={norm}`"
    else:
        of_norm = "" if attack.norm is Norm.linf else f" attack.norm={norm}"
        better = f"run `{task}attack=standard{of_norm}` for a number to report"
    return f"{type(attack).__name__} is a one-step attack; {better}" if one_step else better.capitalize()


def check_saved(context: Context, curve: RobustnessCurve, network: nn.Module, norm: Norm) -> list[CheckResult]:
    """Save the first images with labels and predictions, read them back, and check range, budget and predictions."""
    kept = len(curve.examples)
    tensors = {"labels": curve.labels[:kept], "original": curve.examples}
    tensors["original.predicted"] = curve.clean.predicted[:kept]
    for attacked in curve.attacked:
        tensors[f"epsilon_{attacked.epsilon:g}"] = attacked.examples
        tensors[f"epsilon_{attacked.epsilon:g}.predicted"] = attacked.answers.predicted[:kept]
    saved = load_file(context.record.artifact("adversarial", tensors))
    over, changed = 0, 0
    for attacked in curve.attacked:
        x_adv = saved[f"epsilon_{attacked.epsilon:g}"]
        over += not within_budget(x_adv, saved["original"], attacked.epsilon, norm)
        predicted = torch.cat(
            [predict_images(network, part.to(context.hardware.device)).predicted for part in torch.split(x_adv, BATCH)]
        )
        changed += int((predicted != attacked.answers.predicted[: len(predicted)]).sum())
    count = f"of {len(curve.attacked)} epsilons"
    return [
        CheckResult("saved images are in [0, 1] and within epsilon", over == 0, f"{over} {count} over", BROKEN),
        CheckResult("saved images are judged the same", changed == 0, f"{changed} answers changed", RANDOMISED),
    ]
