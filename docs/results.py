"""Writes the results: `python docs/results.py FOLDER` takes the runs that `trustml study results` left there.

docs/results.json keeps every number with its run: a number that FOLDER has replaces the former one of its name, and
others stay. docs/results.md and the table in README.md are made of that file, and have no number of their own.
"""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from trustml_cli.config.groups import config_folder
from trustml_cli.results.aggregate import read_runs
from trustml_cli.results.study import (
    UNMEASURED,
    Item,
    Measured,
    answer_of,
    asked,
    figures_of,
    item_of,
    judged,
    measure,
    read_study,
)

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
IN_README = (  # items of the study
    "mnist_cnn", "robust", "backdoor", "debias", "membership", "private_features", "stolen_network", "coverage",
)  # fmt: skip
MARKED = re.compile(r"(?<=<!-- written by make results -->\n).*?(?=<!-- end -->)", re.DOTALL)
KEPT = ("value", "ci_low", "ci_high", "n")
BEGINNING = """# Results

Every number comes from one run, and `make results` writes this page from the runs; nothing on it is typed by hand.
Intervals are 95 % intervals over the `n` test examples; seconds are wall time, and other jobs ran at the same time as
some runs. A network that an earlier run had trained came from the store, and the seconds do not have its training. The
images of CIFAR-10 went through JPEG, so that figures for the original pixels compare only roughly.
[Experiments](experiments.md) has what else was tried, and what was learnt.
"""


def items() -> Mapping[str, Item]:
    """The items of `study=results`, by name."""
    return read_study(OmegaConf.load(config_folder() / "study" / "results.yaml"))[1]


def measured(folder: Path) -> dict[str, Any]:
    """Of each item whose runs in `folder` measured all its figures: the figures, the answer, and what the runs were."""
    runs = read_runs(folder)
    found = {}
    for name, item in items().items():
        own = [run for run in runs if item_of(run) == name]
        figures = measure(name, item, own) if own else []
        if not figures or any(each.verdict == UNMEASURED for each in figures):
            continue
        found[name] = {
            "figures": {each.figure: {key: asdict(each)[key] for key in KEPT} for each in figures},
            "command": command(item),
            "seed": own[0].facts.seed,
            "seconds": round(figures[0].seconds or 0),
            "date": own[0].facts.started[:10],
            "commit": (own[0].facts.git_commit or "")[:9],
            "torch": own[0].facts.libraries.get("torch"),
            "device": own[0].facts.device,
        }
    return found


def command(item: Item) -> str:
    """What a shell takes for the runs of the item."""
    swept = any(word.is_sweep_override() for word in OverridesParser.create().parse_overrides(item.run))
    return shlex.join(["trustml", *(["-m"] if swept else []), *item.run])


def page(numbers: Mapping[str, Any], of_study: Mapping[str, Item]) -> str:
    """The page: a section for each item of the study in order, those without a number at the end."""
    missing = [item.question for name, item in of_study.items() if name not in numbers]
    sections = [section(name, of_study[name], numbers[name]) for name in of_study if name in numbers]
    if missing:
        sections.append(
            "## Not measured in this way yet\n\n" + "\n".join(f"- {question}" for question in missing) + "\n"
        )
    return "\n".join([BEGINNING, *sections])


def table(numbers: Mapping[str, Any], of_study: Mapping[str, Item]) -> str:
    """README's table: the answers of a few items."""
    known = [name for name in IN_README if name in numbers]
    answers = [answer_of(of_study[name], kept(name, of_study[name], numbers[name])) for name in known]
    lines = [f"| {of_study[name].question} | {answer} |" for name, answer in zip(known, answers, strict=True)]
    return "\n".join(["", "| question | answer |", "| --- | --- |", *lines, "", ""])


def kept(name: str, item: Item, number: Mapping[str, Any]) -> list[Measured]:
    """The figures of an item with the values of `number`, held against what the study asks for now."""
    found = []
    for each, figure in figures_of(name, item).items():
        row = number["figures"].get(each)
        if row is not None:
            values = {key.removeprefix("ci_"): nan if row[key] is None else row[key] for key in KEPT}
            found.append(judged(asked(name, each, figure), figure, values))
    return found


def section(name: str, item: Item, number: Mapping[str, Any]) -> str:
    """The figures of one item as a table, below the command that makes them again."""
    figures = kept(name, item, number)
    rows = [
        [each.label, each.written(each.value), each.interval, "" if each.n is None else f"{each.n:,}", limit(each)]
        for each in figures
    ]
    heads = ["figure", "value", "95 % interval", "n", "limit"]
    lines = [heads, ["---"] * len(heads), *rows]
    about = [f"seed {number['seed']}", f"{number['seconds']:,} s on {number['device']}", f"torch {number['torch']}",
             number["date"], f"commit {number['commit']}"]  # fmt: skip
    cells = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    head = f"## {item.question}\n\n`{number['command']}`  \n{', '.join(about)}"
    return f"{head}\n\n{cells}\n\n{answer_of(item, figures)}\n"


def limit(each: Measured) -> str:
    """What the figure is compared with, whether it holds, and who says so."""
    return f"{each.limit}: {each.verdict} ({each.source})" if each.limit else ""


def main(arguments: Sequence[str]) -> None:
    """Merge the numbers of a folder into the kept ones, and write the files."""
    file = FOLDER / "results.json"
    of_study = items()
    numbers = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    numbers |= measured(Path(arguments[0]))
    numbers = {name: numbers[name] for name in of_study if name in numbers}
    file.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (FOLDER / "results.md").write_text(page(numbers, of_study), encoding="utf-8")
    readme = MARKED.sub(lambda _: table(numbers, of_study), README.read_text(encoding="utf-8"))
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
