"""A model card for the Hugging Face hub: the figures of a study as `model-index`, and with verdicts in the text."""

from collections.abc import Sequence
from html import escape

import yaml

from trustml_cli.results.aggregate import Run
from trustml_cli.results.report.table import shown
from trustml_cli.results.run_facts import config_in
from trustml_cli.results.study import Measured, Study
from trustml_cli.system.distribution import own_version
from trustml_cli.system.printable import printable

HEAD = ("axis", "figure", "value", "95 % interval", "n", "limit", "verdict")


def model_card(study: Study, runs: Sequence[Run], measured: Sequence[Measured]) -> str:
    """README.md of a study of one model: YAML front matter as the hub reads it, then a table of all figures.

    `runs` are all runs of the study that were completed, at least one.
    """
    first = next((run for run in runs if "shape" in (run.facts.get("data") or {})), runs[0])
    shape = (first.facts.get("data") or {}).get("shape", [])
    kind = "image" if len(shape) == 3 else "tabular"
    name = str(config_in(first.folder).get("model.factory") or first.facts.model)
    dataset = str(first.facts.dataset)
    metrics = [
        {"type": each.metric, "name": f"{each.item}: {each.label}", "value": each.value, "verified": False}
        for each in measured
        if each.value is not None
    ]
    result = {
        "task": {"type": f"{kind}-classification", "name": f"{kind} classification".capitalize()},
        "dataset": {"type": dataset, "name": dataset},
        "metrics": metrics,
    }
    front = {"tags": ["trustml"], "model-index": [{"name": name, "results": [result]}]}
    rows = [
        (each.item, each.label, each.written(each.value), each.interval, shown(each.n), each.limit, verdict(each))
        for each in measured
    ]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {cell(name)}: {cell(study.title)}",
        "",
        f"Measured on `{dataset}` by trustml {own_version()}. There is no total score.",
        *(["The quick form: networks trained for seconds, few images."] if study.quick else []),
        "",
        *(f"| {' | '.join(map(cell, row))} |" for row in (HEAD, ("---",) * len(HEAD), *rows)),
        "",
    ]
    return "\n".join(lines)


def verdict(each: Measured) -> str:
    """The verdict, and why a value is missing."""
    return f"{each.verdict}: {each.why}" if each.why else each.verdict


def cell(text: str) -> str:
    """A text in one cell of a table in Markdown, which shows no HTML of anybody's."""
    return escape(printable(text), quote=False).replace("|", "\\|").replace("\n", " ")
