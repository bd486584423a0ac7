"""A study of one model held against the same study of another: which figures became better, and which worse."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from trustml_cli.metrics.paired import Values, paired_p_value
from trustml_cli.results.aggregate import Run
from trustml_cli.results.recorder import BY_IMAGE, DOES_NOT_COUNT, WHERE
from trustml_cli.results.study import UNCOMPARED, Figure, Item, Measured, figures_of, measure, rows_of
from trustml_cli.system.errors import InputError
from trustml_cli.system.user_file import MB, read_bytes, read_text

LARGEST = 64 * MB  # bytes of the answers of one run, and of a study.json
OF_THE_MODEL = ("model", "trainer", "defence", "calibrator", "precision", "compile", "device", "data_dir")
ALPHA = 0.05  # p-values below it count as a difference
BETTER, WORSE, SAME = "better", "worse", "no difference"


def asked_of(jobs: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, list[list[str]]]:
    """The overrides of each item's jobs that say what is asked, without those that say of which model, or where."""
    skipped = {*OF_THE_MODEL, *DOES_NOT_COUNT, *WHERE, "hydra", "launcher"}
    return {
        name: [sorted(word for word in job if word.lstrip("+~").partition("=")[0].partition(".")[0] not in skipped)
               for job in each]
        for name, each in jobs.items()
    }  # fmt: skip


def check_against(folder: Path, asked: Mapping[str, list[list[str]]]) -> None:
    """Raise `InputError` unless `folder` holds a study that has asked some of the same items, and all of them alike."""
    try:
        before = json.loads(read_text(folder / "study.json", LARGEST, inside=folder))["asked"]
        shared = {name: [list(map(str, job)) for job in before[name]] for name in asked if name in before}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"--against: {folder} is no study's directory (it has no study.json that says what was asked)"
        ) from error
    if not shared:
        raise InputError(f"--against: {folder} is of another study; it has none of {', '.join(asked)}")
    for name, jobs in shared.items():
        if jobs != asked[name]:
            there, here = ({word for job in each for word in job} for each in (jobs, asked[name]))
            differs = f"with {told(there - here)}, here with {told(here - there)}"
            raise InputError(f"--against: {folder} asked {name} {differs}; ask both alike")


def told(words: set[str]) -> str:
    """Overrides in words."""
    return " ".join(sorted(words)) or "nothing more"


def compare(name: str, item: Item, runs: Sequence[Run], others: Sequence[Run]) -> list[Measured]:
    """The figures of an item from its `runs`, with their change against those of the runs `others` of another model."""
    here, there = (measure(name, item, each) for each in (runs, others))
    figures = figures_of(name, item)
    return [held_against(one, other, figures[one.figure], runs, others) for one, other in zip(here, there, strict=True)]


def held_against(
    one: Measured, other: Measured, figure: Figure, runs: Sequence[Run], others: Sequence[Run]
) -> Measured:
    """A figure with its value for the other model, and whether it is better or worse.

    By a paired test where both runs kept the answers by image of the same images; otherwise a difference counts where
    the 95 % intervals do not overlap; without intervals nothing is said. A required figure that is worse is broken, and
    one that has no limit of its own and is not compared.
    """
    if one.value is None:
        return one
    alone = one.required and not one.limit  # nothing else says whether it is good enough
    if other.value is None:
        return replace(one, change=UNCOMPARED, broken=True) if alone else one
    answers, theirs = answers_of(figure, runs), answers_of(figure, others)
    p_value = None
    if answers is None or theirs is None or answers.shape != theirs.shape or not same_images(figure, runs, others):
        mine, its = ((each.ci_low, each.ci_high) for each in (one, other))
        if None in (*mine, *its):
            return replace(one, against_value=other.value, change=UNCOMPARED, broken=one.broken or alone)
        differs = mine[0] > its[1] or its[0] > mine[1]  # type: ignore[operator]
    else:
        p_value = paired_p_value(answers, theirs)
        differs = p_value < ALPHA
    change = SAME
    if differs:
        rises, up = one.value > other.value, direction(figure, runs)
        change = ("higher" if rises else "lower") if up is None else BETTER if rises is up else WORSE
    broken = one.broken or (one.required and change == WORSE)
    return replace(one, against_value=other.value, p_value=p_value, change=change, broken=broken)


def direction(figure: Figure, runs: Sequence[Run]) -> bool | None:
    """Whether a higher value is better, by the figure's limits or as its task declares it; None if neither says."""
    if (figure.low is None) is not (figure.high is None):
        return figure.low is not None
    said = {run.facts.better.get(figure.metric) for run in runs}
    return said == {"higher"} if said in ({"higher"}, {"lower"}) else None


def same_images(figure: Figure, runs: Sequence[Run], others: Sequence[Run]) -> bool:
    """Whether the figure is of the same images in all runs: of one data set, under the same conditions.

    What was held out for training does not change the test images of a data set.
    """
    alike = condition(figure, runs) == condition(figure, others)
    return alike and len({fingerprint(run) for run in (*runs, *others)}) == 1


def condition(figure: Figure, runs: Sequence[Run]) -> dict[str, str]:
    """The conditions of the row of a figure of a single run, without the name of its model.

    A class that a run chose by itself, for example, decides which images it attacked.
    """
    (run,), row = runs, rows_of(figure, runs).iloc[0]
    return {name: str(row[name]) for name in run.conditions if str(row[name]) != run.facts.model}


def fingerprint(run: Run) -> Any:
    """The fingerprint of a run's data set as it was read."""
    data = run.facts.get("data")
    return str(data.get("fingerprint")).partition(", ")[0] if isinstance(data, dict) else run.folder


def answers_of(figure: Figure, runs: Sequence[Run]) -> Values | None:
    """The values by image behind a figure of a single run, [N]; None where they were not kept."""
    if len(runs) != 1:
        return None
    (run,), (row,) = runs, rows_of(figure, runs).index
    try:
        kept = load(read_bytes(run.folder / "artifacts" / f"{BY_IMAGE}.safetensors", LARGEST, inside=run.folder))
    except (OSError, ValueError, SafetensorError):
        return None
    return kept.get(f"{row}.{figure.metric}")
