"""A study: runs that answer questions, the figures that answer each, and what these are held against."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from math import isnan
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import pandas
from omegaconf import OmegaConf

from trustml_cli.config.instantiate import build_as, nearest
from trustml_cli.metrics.columns import is_percentage, is_share, natural_range, written
from trustml_cli.results.aggregate import Run, conditions_of, same, summarise, sweep_table, widest
from trustml_cli.results.report.table import NOTHING
from trustml_cli.system.errors import InputError
from trustml_cli.system.printable import printable
from trustml_cli.system.ranges import require

HOLDS, FAILS, UNMEASURED = "holds", "does not hold", "not measured"
UNCOMPARED = "not compared"


@dataclass(frozen=True)
class Figure:
    """A value of metrics.csv, in the row where the conditions `where` hold, and its limits.

    `expected` is a published value; it is met within `tolerance`. `required` makes the study end with status 3 unless
    the whole 95 % interval is on the right side of the limit. `source` says where limits and expectations are from.
    """

    metric: str
    label: str = ""
    where: dict[str, Any] = field(default_factory=dict)
    at_least: float | None = None
    at_most: float | None = None
    expected: float | None = None
    tolerance: float = 0.0
    required: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("at_least", "at_most", "expected")}
        limits = {name: value for name, value in given.items() if value is not None}
        if self.expected is not None and len(limits) > 1:
            other = next(name for name in limits if name != "expected")
            raise ValueError(f"{other}: is not taken beside expected; set expected=null and tolerance=0 as well")
        if self.tolerance and self.expected is None:
            raise ValueError("tolerance: needs expected")
        require(self, "tolerance", at_least=0)
        least, most = natural_range(self.metric)
        for name, value in limits.items():
            if not least <= value <= most:
                raise ValueError(f"{name}: {self.metric} is from {least:g} to {most:g}, got {value:g}")
            if is_percentage(self.metric) and 0 < value <= 1:
                raise ValueError(f"{name}: {self.metric} is in percent; write {100 * value:g}, not {value:g}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"at_least: must be at most at_most, {self.high:g}, got {self.low:g}")

    @property
    def low(self) -> float | None:
        """The smallest value that is good enough."""
        return self.at_least if self.expected is None else self.expected - self.tolerance

    @property
    def high(self) -> float | None:
        """The largest value that is good enough."""
        return self.at_most if self.expected is None else self.expected + self.tolerance

    @property
    def limit(self) -> str:
        """The limits in words; empty if there are none."""
        if self.expected is not None:
            return f"{self.written(self.expected)} ± {self.written(self.tolerance)}"
        words = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {self.written(value)}" for word, value in words if value is not None)

    def written(self, limit: float) -> str:
        """A limit as people read it; a share with all of its decimals."""
        if is_share(self.metric):
            return f"{100 * limit:.10g} %"
        return written(self.metric, limit).replace(".0 %", " %")

    def admits(self, low: float, high: float) -> bool:
        """Whether all values from `low` to `high` are within the limits."""
        return (self.low is None or low >= self.low) and (self.high is None or high <= self.high)


@dataclass(frozen=True)
class Item:
    """A question of a study: the overrides of its run (or sweep), more of them for the quick form, and its answer.

    `answer` is a sentence in which {NAME} stands for a figure; `vary` are overrides to try next; `plots` are pictures
    of the run by name, the first two if none is named.
    """

    question: str
    run: list[str]
    quick: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    answer: str = ""
    vary: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """A study as its YAML has it; `quick` takes the quick form of each item.

    `against` is the directory of the same study of another model, with which this one is compared. `model_card` writes
    README.md as a model card; it is for studies of one model.
    """

    title: str
    items: dict[str, Any]
    introduction: str = ""
    quick: bool = False
    against: str | None = None
    model_card: bool = False


@dataclass(frozen=True)
class Measured:
    """A figure of an item with its value, 95 % interval, n, verdict, and the reason where there is no value.

    `against_value` is that of another model, `p_value` that of a paired test, and `change` says which is better.
    """

    item: str
    figure: str
    label: str
    metric: str
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    limit: str = ""
    verdict: str = ""
    why: str = ""
    required: bool = False
    broken: bool = False
    against_value: float | None = None
    p_value: float | None = None
    change: str = ""
    source: str = ""
    seconds: float | None = None
    command: str = ""

    def written(self, value: float | None) -> str:
        """A value of this metric as people read it; – for None."""
        return NOTHING if value is None else written(self.metric, value)

    @property
    def interval(self) -> str:
        """The 95 % interval; empty where there is none."""
        return f"{self.written(self.ci_low).removesuffix(' %')} to {self.written(self.ci_high)}" * (
            self.ci_low is not None
        )

    @property
    def text(self) -> str:
        """The value with its interval and n, or why there is none."""
        if self.value is None:
            return f"({UNMEASURED}: {self.why})"
        parts = [f"95 % interval {self.interval}"] * bool(self.interval)
        parts += [f"n = {self.n:,}"] if self.n is not None else []
        return self.written(self.value) + (f" ({', '.join(parts)})" if parts else "")

    @property
    def against(self) -> str:
        """The value of the other model, and whether this one is better; empty where nothing is compared."""
        if not self.change:
            return ""
        if self.change == UNCOMPARED:
            if self.against_value is None:
                return f"{UNCOMPARED}: the other study has no value"
            return f"{UNCOMPARED} with {self.written(self.against_value)}: there are no intervals"
        how = "by the intervals" if self.p_value is None else f"p = {self.p_value:.4g}"
        return f"{self.change} than {self.written(self.against_value)} ({how})".replace(
            "difference than", "difference from"
        )


def read(cls: type, node: Any, key: str) -> Any:
    """A `cls` from a mapping of the YAML; fields with a default may be left out. Raises `InputError` with the key."""
    if not isinstance(node, Mapping):
        raise InputError(f"{key}: must be a mapping of keys to values, got {node}")
    optional = {each.name: each.default for each in fields(cls) if each.default is not MISSING}
    optional |= {each.name: each.default_factory() for each in fields(cls) if each.default_factory is not MISSING}
    return build_as(cls, OmegaConf.create({**optional, **node}), key)


def read_study(node: Any) -> tuple[Study, dict[str, Item]]:
    """The study in the config node `study`, and its items by name. Raises `InputError` for what a study cannot have."""
    study: Study = read(Study, node, "study")
    items = {str(name): read(Item, item, f"study.items.{name}") for name, item in study.items.items()}
    if not items:
        raise InputError("study.items: is empty; name at least one item")
    for name, item in items.items():
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"study.items.{name}: must be letters, digits, _ and -; it names a directory")
        figures = figures_of(name, item)
        for used in re.findall(r"\{(\w+)\}", item.answer):
            if used not in figures:
                raise InputError(f"study.items.{name}.answer: no figure {used!r}; {nearest(used, figures)}")
        for each, figure in figures.items():
            if figure.required and not figure.limit and study.against is None:
                key = f"study.items.{name}.figures.{each}.required"
                raise InputError(f"{key}: needs at_least, at_most or expected, or another study to go --against")
    return study, {name: of_quick_form(item) for name, item in items.items()} if study.quick else items


def of_quick_form(item: Item) -> Item:
    """The item in its quick form: limits that are about another data set than that of this form are left out."""
    if not any(word.startswith("dataset=") for word in item.quick):
        return item
    none = {"at_least": None, "at_most": None, "expected": None, "tolerance": 0.0, "source": ""}
    figures = {name: dict(node) if node.get("required") else {**node, **none} for name, node in item.figures.items()}
    return replace(item, figures=figures)


def figures_of(name: str, item: Item) -> dict[str, Figure]:
    """The figures of an item by name."""
    key = f"study.items.{name}.figures"
    return {each: read(Figure, node, f"{key}.{each}") for each, node in item.figures.items()}


def item_of(run: Run) -> str:
    """The item that a run of a study answers; its directory is named ITEM or ITEM,OVERRIDES."""
    return run.folder.name.partition(",")[0]


def asked(name: str, each: str, figure: Figure) -> Measured:
    """The figure called `each` of an item called `name`, without a value."""
    label = figure.label or figure.metric.replace("_", " ")
    return Measured(
        name, each, label, figure.metric, limit=figure.limit, required=figure.required, source=figure.source
    )


def measure(name: str, item: Item, runs: Sequence[Run]) -> list[Measured]:
    """The figures of an item from its runs: over several seeds the mean, with the interval that covers most errors."""
    seconds = [run.facts.seconds for run in runs if run.facts.seconds is not None]
    command = command_of(runs) if runs else shlex.join(["trustml", "-m", *item.run])
    found = []
    for each, figure in figures_of(name, item).items():
        base = replace(asked(name, each, figure), seconds=sum(seconds) if seconds else None, command=command)
        try:
            found.append(judged(base, figure, row_of(figure, runs)))
        except LookupError as error:
            why = str(error.args[0])
            found.append(replace(base, verdict=UNMEASURED, why=why, broken=figure.required))
    return found


def command_of(runs: Sequence[Run]) -> str:
    """The shell command that repeats the runs of an item: a sweep over the values in which they differ."""
    if len(runs) == 1:
        return runs[0].command
    values: dict[str, dict[str, None]] = {}
    for word in (word for run in runs for word in run.facts.command[1:]):
        key, equals, value = word.partition("=")
        values.setdefault(key + equals, {})[value] = None
    return shlex.join(["trustml", "-m", *(f"{key}{','.join(each)}" for key, each in values.items())])


def rows_of(figure: Figure, runs: Sequence[Run]) -> pandas.DataFrame:
    """The rows that `figure` describes of all completed runs. Raises `LookupError` if there is none."""
    done = completed(runs)
    if not done:
        raise LookupError(next((run.facts.error for run in runs if run.facts.error), "no run of it was completed"))
    table = sweep_table(done)
    for name, wanted in figure.where.items():
        if name not in table:
            raise LookupError(f"no column {name}; {nearest(name, map(str, table))}")
        there = [str(value) for value in table[name].unique()]
        table = table[[same(pandas.Series([value]), pandas.Series([wanted])) for value in table[name]]]
        if not len(table):
            raise LookupError(f"no row with {name}={wanted}; there are {', '.join(there)}")
    if figure.metric not in table:
        raise LookupError(f"no column {figure.metric}; {nearest(figure.metric, map(str, table))}")
    table = table[table[figure.metric].notna()]
    if not len(table):
        raise LookupError(f"no value of {figure.metric} in its rows")
    return table


def completed(runs: Sequence[Run]) -> list[Run]:
    """The runs that were completed and have measured something."""
    return [run for run in runs if run.status == "completed" and len(run.metrics)]


def row_of(figure: Figure, runs: Sequence[Run]) -> Mapping[str, Any]:
    """The summary over seeds of the row that `figure` describes. Raises `LookupError` if there is none."""
    table = rows_of(figure, runs)
    table = table[[name for name in table if table[name].notna().any()]]
    conditions = conditions_of(completed(runs), table)
    summary = summarise(table, conditions)
    if f"{figure.metric}_std" not in summary:
        raise LookupError(f"{figure.metric} is a condition or a text; name a column of measured numbers")
    if len(summary) > 1:
        varied = [name for name in conditions if summary[name].nunique(dropna=False) > 1]
        raise LookupError(f"{len(summary)} rows, which differ in {', '.join(varied)}; add one to where")
    counts = f"{figure.metric}_n"
    whose = widest(summary, figure.metric)
    ends = {end: summary[f"{figure.metric}{whose}_ci_{end}"].iloc[0] for end in ("low", "high")}
    return {"value": summary[figure.metric].iloc[0], "n": table[counts].iloc[0] if counts in table else None, **ends}


def judged(base: Measured, figure: Figure, row: Mapping[str, Any]) -> Measured:
    """`base` with the values of `row`, and whether they are within the limits of `figure`."""
    value = float(row["value"])
    low, high = (None if isnan(row[end]) else float(row[end]) for end in ("low", "high"))
    n = None if row["n"] is None or isnan(row["n"]) else int(row["n"])
    verdict = (HOLDS if figure.admits(value, value) else FAILS) if figure.limit else ""
    sure = figure.admits(value if low is None else low, value if high is None else high)
    broken = figure.required and not sure
    return replace(base, value=value, ci_low=low, ci_high=high, n=n, verdict=verdict, broken=broken)


def answer_of(item: Item, measured: Sequence[Measured]) -> str:
    """The item's sentence with its figures filled in, or why none of them was measured."""
    if item.answer and measured and all(each.value is None for each in measured):
        reasons = dict.fromkeys(each.why for each in measured)
        return f"{UNMEASURED.capitalize()}: {'; '.join(reasons)}."
    texts = {each.figure: each.text for each in measured}
    return re.sub(r"\{(\w+)\}", lambda match: texts.get(match[1], match[0]), item.answer)


def junit(title: str, measured: Sequence[Measured]) -> str:
    """The figures with limits, and those required, as a test report in JUnit's XML, which build servers show.

    A required figure that is not surely within its limits fails; any other that was not measured counts as skipped.
    """
    cases = [each for each in measured if each.limit or each.required]
    failures, skipped = (
        sum(each.broken for each in cases), sum(each.value is None and not each.broken for each in cases)
    )  # fmt: skip
    suite = Element(
        "testsuite", name=printable(title), tests=str(len(cases)), failures=str(failures), skipped=str(skipped)
    )
    for each in cases:
        case = SubElement(suite, "testcase", classname=each.item, name=printable(each.figure))
        words = [f"{each.label}: {each.text}"] + [f"limit: {each.limit}"] * bool(each.limit)
        told = printable("; ".join(words + [each.against] * bool(each.change)))
        if each.broken:
            SubElement(case, "failure", message=told)
        elif each.value is None:
            SubElement(case, "skipped", message=told)
        else:
            SubElement(case, "system-out").text = f"{told}; {each.verdict}"
    return tostring(suite, encoding="unicode", xml_declaration=True)
