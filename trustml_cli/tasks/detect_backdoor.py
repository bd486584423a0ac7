"""task=detect_backdoor: detection of a backdoor in a network and in its training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.backdoor_detection.probe import probe_scores
from trustml_cli.backdoor_detection.suspicion import Finding, Inspection, Suspicion
from trustml_cli.backdoors.concealment import Concealment
from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, random_indices
from trustml_cli.data.unseen import split_validation
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import proportion, with_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.ood.separation import separation, separation_intervals
from trustml_cli.plots.detect_backdoor import (
    Inspected,
    Interval,
    auroc_over_strength,
    latent_maps,
    recovered_masks,
    score_panels,
)
from trustml_cli.system.errors import InputError, RunFailed
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.inspection import check_latents, examples, supporting
from trustml_cli.tasks.poisoning import (
    Poisoning,
    accuracy,
    amount,
    check_poison,
    check_trained,
    concealed,
    condition,
    success,
)
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

PROBE = "linear probe, with labels"
REMOVED = 1.5  # times as many images as are poisoned: what spectral signatures remove (Tran et al. 2018)


@dataclass(frozen=True, kw_only=True)
class DetectBackdoor(Poisoning):
    """Inspect poisoned networks, one for each strength of `concealment`, and a never-poisoned one by each `suspicion`.

    A share `clean_share` of the training images is held out before they are poisoned: the defender's clean images,
    whose scores set thresholds at their `quantile`. `images` training images (None: all) are inspected, of each network
    as it was trained on them. AUROC is measured among the images with the labels of the poisoned ones.
    """

    columns: ClassVar[Columns] = (
        *conditions("suspicion", "network", "lambda", "trigger", "source", "target", "poison_rate"),
        *sometimes(headline(higher("auroc"))),
        *sometimes(logged(higher("caught_rate"))),
        *logged(lower("flagged_rate")),
        *sometimes(higher("removed_rate")),
        *sometimes(logged(neither("anomaly_index"))),
        *sometimes(logged(higher("linear_probe_auroc"))),
        *higher("clean_accuracy"),
        *lower("attack_success_rate"),
        *neither("inspected_images", "poisoned_images", "poisoned_share_of_training"),
    )

    suspicion: list[str] | None
    clean_share: float
    quantile: float
    images: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "clean_share", "quantile", above=0, below=1)
        require(self, "images", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        trigger: Trigger,
        concealment: Concealment,
        suspicion: Mapping[str, Suspicion],
    ) -> None:
        """Write one row for each detector and network, then the plots."""
        check_trained(model)
        whole = context.load(dataset)
        detectors = supporting(self.suspicion, suspicion, whole)
        data, clean = split_validation(whole, self.clean_share, context.seed)
        poison = self.poison(data, trigger, context.seed)
        poisoned = poison.apply(data)
        rows = random_indices(data.train, self.images or len(data.train), context.seed_for("inspected", 1))
        triggered = poison.choose(data.train.labels)[rows]
        if not triggered.any() or triggered.all():
            count = int(triggered.sum())
            raise InputError(
                f"task.images: {count} of the {len(rows)} images that are inspected are poisoned; use more"
            )
        check_latents(model, data)
        check_poison(context, poison, data, poisoned)

        suspects = {"clean": data.train.subset(rows), "poisoned": poisoned.train.subset(rows)}
        filed = suspects["poisoned"].labels[triggered]
        inspected = []
        specs = []
        for strength in concealment.strengths:
            spec = concealed(context.spec(poisoned, model, trainer), concealment, poison, strength)
            specs.append(("poisoned", strength, spec))
        # the first λ stands in its row, too, so that a sweep over λ has one such column
        specs.append(("clean", concealment.strengths[0], context.spec(data, model, trainer)))
        for kind, strength, spec in specs:
            stage = f"poisoned, lambda {strength:g}" if strength and kind == "poisoned" else kind
            network = context.train_or_load(spec, stage=stage).network
            given = Inspection(
                network=network,
                suspects=examples(network, suspects[kind], context.hardware),
                clean=examples(network, clean, context.hardware),
                classes=len(data.classes),
                quantile=self.quantile,
                seed=context.seed_for("inspection", 1),
            )
            found = {
                name: detector.inspect(given)
                for name, detector in Progress(detectors.items(), desc="inspecting", unit="detector")
            }
            crowd = torch.isin(given.suspects.labels, filed)
            carry = triggered & (kind == "poisoned")
            if carry[crowd].all():  # no other image has their labels
                crowd = torch.ones_like(crowd)
            one = Inspected(kind, strength, found, carry, crowd, given.suspects.latents)
            inspected.append(self.record(context, one, poison, data, network, len(clean)))
        self.plot(context, poison, data, inspected)

    def record(
        self, context: Context, one: Inspected, poison: Poison, data: Dataset, network: nn.Module, clean: int
    ) -> Inspected:
        """Write the rows of one network, keep its AUROCs, and check that a never-poisoned one is not flagged.

        `clean` is the number of clean images that set the thresholds.
        """
        shown = poison.trigger_all(data.test.subset(poison.of_source(data.test.labels)))
        rates = {
            **accuracy("clean_accuracy", predict(network, data.test, context.hardware)),
            **success("attack_success_rate", predict(network, shown, context.hardware), poison),
            "inspected_images": len(one.triggered),
        }
        there = probed(one, context.seed)
        for name, finding in one.findings.items():
            if not finding.scores.isfinite().all():
                raise RunFailed(f"suspicion {name} gave a score that is not finite")
            found = caught(finding, one, context.seed)
            named = {"suspicion": name, "network": one.kind, "lambda": one.strength, **condition(context, poison, data)}
            context.record.metrics(named, **found, **there, **rates, **amount(poison, data))
            if one.kind == "clean":
                self.check_clean(context, name, finding, clean)
            else:
                one.auroc[name] = interval("auroc", found)
        if there:
            one.auroc[PROBE] = interval("linear_probe_auroc", there)
        scores = {name: finding.scores for name, finding in one.findings.items()}
        context.record.artifact(f"scores_{one.name}", {**scores, "triggered": one.triggered})
        return one

    def check_clean(self, context: Context, name: str, finding: Finding, clean: int) -> None:
        """Check that a detector flags no more images of a never-poisoned network than its threshold lets it expect."""
        flagged, n = int(finding.flagged.sum()), len(finding.flagged)
        most = 1 - self.quantile + 3 * sqrt(self.quantile * (1 - self.quantile) * (1 / n + 1 / clean))
        figure = f"{in_percent(flagged / n)} of {n:,} clean images flagged, up to {in_percent(most)} expected"
        if finding.anomaly_index is not None:
            figure += f"; anomaly index {finding.anomaly_index:.2f}"
        context.record.check(f"{name} does not flag a network that was never poisoned", flagged / n <= most, figure)

    def plot(self, context: Context, poison: Poison, data: Dataset, inspected: list[Inspected]) -> None:
        """Plot scores, latents, recovered masks, and AUROC over λ where there are several."""
        subject = f"{context.record.subject}, trigger {context.record.choices['trigger']}"
        *poisoned, control = inspected
        shown = [poisoned[0], *poisoned[1:][-1:], control]
        if len(poisoned) > 1:
            context.record.plot("concealment", auroc_over_strength(poisoned, subject))
        context.record.plot("scores", score_panels(shown, subject))
        context.record.plot("latents", latent_maps(shown, subject))
        name = next((name for name, finding in control.findings.items() if finding.masks is not None), None)
        if name is not None:
            x, _ = next(batches(data.test.subset(torch.arange(1)), 1, torch.device("cpu")))
            marked = poison.trigger(x)
            found = {one.title: one.findings[name] for one in shown}
            figure = recovered_masks(found, name, data.classes, subject, (marked[0] - x[0]).abs().amax(0))
            context.record.plot("masks", figure)


def caught(finding: Finding, one: Inspected, seed: int) -> dict[str, Any]:
    """The columns of what a detector found; without AUROC and shares of poisoned images where there are none."""
    scores, triggered = finding.scores[one.crowd], one.triggered[one.crowd]
    values = proportion("flagged_rate", int(finding.flagged[~one.triggered].sum()), int((~one.triggered).sum()))
    if finding.anomaly_index is not None:
        values["anomaly_index"] = finding.anomaly_index
    if count := int(triggered.sum()):
        values |= separated("auroc", scores, triggered, seed)
        values |= proportion("caught_rate", int(finding.flagged[one.triggered].sum()), count)
        highest = scores.argsort(descending=True, stable=True)[: round(REMOVED * count)]
        values |= proportion("removed_rate", int(triggered[highest].sum()), count)
    return values


def probed(one: Inspected, seed: int) -> dict[str, Any]:
    """The columns of a supervised probe's AUROC; none where it has too few poisoned images."""
    triggered = one.triggered[one.crowd]
    scores = probe_scores(one.latents[one.crowd], triggered)
    return {} if scores is None else separated("linear_probe_auroc", scores, triggered, seed)


def separated(name: str, scores: Tensor, triggered: Tensor, seed: int) -> dict[str, Any]:
    """The columns of the AUROC of scores [N] of triggered images against those of the others."""
    others, theirs = scores[~triggered], scores[triggered]
    ends = separation_intervals(others, theirs, seed)["auroc"]
    return with_interval(name, separation(others, theirs).auroc, ends, len(scores))


def interval(name: str, values: Mapping[str, Any]) -> Interval:
    """One of the columns with both ends of its interval."""
    return values[name], values[f"{name}_ci_low"], values[f"{name}_ci_high"]
