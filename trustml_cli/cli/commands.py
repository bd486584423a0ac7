"""The commands after `trustml`, as `trustml runs`. Each imports only what it needs, and none torch."""

import os
import shutil
import sys
import textwrap
from argparse import REMAINDER, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trustml_cli.system.errors import InputError
from trustml_cli.system.printable import printable

NARROWEST = 12  # minimum width of a truncated column, in characters
GAP = "  "
COLOURS = {
    "completed": 32,
    "failed": 31,
    "running": 36,
    "killed": 33,
    "unreadable": 31,
}  # ECMA-48 colour codes by status


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, like all errors of the program."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


@dataclass(frozen=True)
class Command:
    """A word after `trustml`: its help, its arguments, and the function that runs it.

    `do` may return a command line of overrides and flags that stands for the command.
    """

    help: str
    arguments: Callable[[ArgumentParser], None]
    do: Callable[[Namespace], list[str] | None]


def answer(words: Sequence[str]) -> list[str] | None:
    """Run the command that the first word names; returns the words that remain for Hydra, None if there are none."""
    if not words or words[0] not in COMMANDS:
        return list(words)
    command = COMMANDS[words[0]]
    parser = Parser(f"trustml {words[0]}", description=command.help, formatter_class=RawDescriptionHelpFormatter)
    command.arguments(parser)
    try:
        rest = command.do(parser.parse_args(words[1:]))
        sys.stdout.flush()
    except OSError as error:
        raise InputError(f"{error.filename or words[0]}: {error.strerror or error}") from error
    return rest


def runs_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `trustml runs`."""
    parser.add_argument("words", metavar="KEY=VALUE", nargs="*", help="list only runs with this value")
    parser.add_argument("--output-dir", metavar="DIR", type=Path, help="directory to search (default: outputs)")
    parser.add_argument("--sort", metavar="KEY", help="sort by KEY, smallest first (default: newest first)")
    parser.add_argument("--reverse", action="store_true", help="reverse the order")
    parser.add_argument("--limit", metavar="N", type=int, help="list the first N runs only")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the list to a CSV file instead; - for stdout")
    parser.epilog = """\
KEY is a column (task, model, dataset, seed, status, headline, ...), a key of the config (task.epsilon), a group
(attack, trainer), a fact of run.json (device, git_commit) or a column of metrics.csv. A status is completed, failed,
running, killed or unreadable.

  trustml runs task=fgsm status=completed
  trustml runs trainer.lr=0.01 --sort headline --reverse --limit 5
  trustml runs model=mlp --csv - | column -ts,"""


def runs(given: Namespace) -> None:
    """List runs."""
    from trustml_cli.cli.runs import export, export_to, lines, ordered, selected
    from trustml_cli.config.spellings import decimals
    from trustml_cli.results.aggregate import read_runs
    from trustml_cli.system.files import write_atomically

    folder = given.output_dir or Path("outputs")
    if given.output_dir and not folder.is_dir():
        raise InputError(f"--output-dir: there is no folder {folder}")
    if given.limit is not None and given.limit < 1:
        raise InputError(f"--limit: must be at least 1, got {given.limit}")
    for word in given.words:
        if "=" not in word:
            raise InputError(f"{word}: write KEY=VALUE; see trustml runs --help")
    pairs = [word.partition("=") for word in given.words]
    found = read_runs(folder)
    listed = selected(found[::-1], [f"{key}={decimals(key, value)}" for key, _, value in pairs])
    if given.sort:
        listed = ordered(listed, given.sort, given.reverse)
    elif given.reverse:
        listed = listed[::-1]
    listed = listed[: given.limit]
    if given.csv == Path("-"):
        export(listed, sys.stdout)
    elif given.csv:
        write_atomically(given.csv, lambda partial: export_to(partial, listed))
        sys.stdout.write(f"{len(listed)} runs are in {given.csv}\n")
    elif listed:
        print_table(lines(listed))
    elif found:
        sys.stdout.write(f"none of the {len(found)} runs below {folder} is like that\n")
    else:
        sys.stdout.write(f"no runs below {folder} yet; begin with: trustml task=fgsm\n")


def show_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `trustml show`."""
    parser.add_argument(
        "group", metavar="GROUP", nargs="?", help="list the choices of this group (default: all groups)"
    )
    parser.add_argument("choice", metavar="CHOICE", nargs="?", help="list the keys of this choice, with their defaults")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", type=Path, help="a folder with choices of your own")
    parser.epilog = """  trustml show
  trustml show attack
  trustml show trainer=smoke
  trustml show attack noise --config-dir mine"""


def show(given: Namespace) -> None:
    """Show the groups, choices and keys of the configuration."""
    from trustml_cli.cli.show import choices_of, show_choice, show_group, show_groups
    from trustml_cli.config.groups import config_folder, description

    if given.config_dir and not given.config_dir.is_dir():
        raise InputError(f"--config-dir: there is no folder {given.config_dir}")
    folders = [*([given.config_dir] if given.config_dir else []), config_folder()]
    group, _, choice = (given.group or "").partition("=")
    choice = choice or given.choice
    if not group:
        print_table(show_groups(folders), wrap=True)
    elif not choice:
        print_table(show_group(group, folders), wrap=True)
    else:
        rows = show_choice(group, choice, folders)
        sys.stdout.write(f"{group}={choice}: {printable(description(choices_of(group, folders)[choice]))}\n")
        print_table(rows, wrap=True)


def report_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `trustml report`."""
    parser.add_argument(
        "folders", metavar="DIR", nargs="*", type=Path, default=[Path("outputs")],
        help="a run, or a folder with runs below it (default: outputs)",
    )  # fmt: skip
    parser.add_argument("--to", metavar="FILE", type=Path, default=Path("comparison.html"),
                        help="the page to write (default: comparison.html)")  # fmt: skip
    parser.epilog = """\
  trustml report outputs/fgsm/2026-11-21_11-30-51_c36f2d84 outputs/fgsm/2026-11-21_11-32-07_88faf547
  trustml report outputs/multirun/2026-11-21_11-31-05_f5e561f5 --to sweep.html"""


def report(given: Namespace) -> None:
    """Compare runs on one page."""
    from trustml_cli.results.aggregate import read_runs
    from trustml_cli.results.report.page import write_comparison

    if given.to.is_dir():
        raise InputError(f"--to: {given.to} is a folder; give a file, e.g. comparison.html")
    folders = [folder for folder in given.folders if not folder.is_file()]  # SWEEP/* includes its tables and page
    for folder in folders or given.folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder; see trustml runs for those with runs")
        if not read_runs(folder):
            raise InputError(f"{folder}: holds no run; see trustml runs for folders that do")
    replaced = ", in place of an earlier file of that name" if given.to.exists() else ""
    sys.stdout.write(f"{write_comparison(folders, given.to)}{replaced}\n")


def resume_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `trustml resume`."""
    parser.add_argument("folder", metavar="DIR", help="the directory of the sweep")
    rest = parser.add_argument(
        "words", metavar="KEY=VALUE", nargs=REMAINDER, help="keys that only you may set, such as launcher"
    )
    rest.required = False  # argparse would name it among what is missing
    parser.epilog = """\
The command of the sweep is read from DIR. Keys that decide which code runs, and where files go, must be given again.

  trustml resume outputs/multirun/2026-11-21_11-31-05_f5e561f5
  trustml resume outputs/multirun/2026-11-21_11-31-05_f5e561f5 launcher=joblib"""


def resume(given: Namespace) -> list[str]:
    """Go on with a sweep."""
    from trustml_cli.config.messages import quoted

    return [f"resume={quoted(given.folder)}", *given.words]


def study_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `trustml study`."""
    parser.add_argument("name", metavar="NAME", help="a study; trustml show study lists them")
    against_argument(parser)
    rest = parser.add_argument(
        "words", metavar="KEY=VALUE", nargs=REMAINDER, help="set for every item that has this key"
    )
    rest.required = False
    parser.epilog = """\
  trustml study audit model=cifar_cnn quick=true
  trustml study audit model=custom model.factory=mine:network model.checkpoint=mine.safetensors
  trustml study audit model=mlp --against outputs/multirun/2026-11-21_11-31-05_f5e561f5
  trustml study mine --config-dir studies"""


def against_argument(parser: ArgumentParser) -> None:
    """Declare `--against`."""
    parser.add_argument(
        "--against", metavar="DIR", help="the directory of this study of another model, to compare with"
    )


def study(given: Namespace) -> list[str]:
    """Run the items of a study, and answer its questions on one page."""
    from trustml_cli.config.messages import quoted

    behind = Parser("trustml study", add_help=False, allow_abbrev=False)  # what follows the name goes to Hydra
    against_argument(behind)
    found, words = behind.parse_known_args(given.words)
    against = found.against or given.against
    return [f"study={given.name}", *([f"study.against={quoted(against)}"] if against else []), *words]


def print_table(rows: Sequence[Sequence[str]], wrap: bool = False) -> None:
    """Print rows as aligned columns; control characters become escape sequences.

    On a terminal they fit its width: the last column is wrapped (`wrap`), or the widest ones are truncated.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    watched = sys.stdout.isatty()
    room = shutil.get_terminal_size().columns
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while watched and not wrap and sum(widths) + len(GAP) * (len(widths) - 1) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    before = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    for row in rows:
        cells = [cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        if watched and wrap:
            cells[-1] = f"\n{' ' * before}".join(textwrap.wrap(row[-1], max(room - before, NARROWEST)))
        coloured = [colour(cell) for cell in cells] if watched and not os.environ.get("NO_COLOR") else cells
        sys.stdout.write(GAP.join(coloured).rstrip() + "\n")


def cut(text: str, width: int) -> str:
    """Truncate a text at its end, or a path at its beginning, since its end is what distinguishes it."""
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if "/" in text and " " not in text else f"{text[: width - 1]}…"


def colour(cell: str) -> str:
    """A status in its terminal colour; any other text unchanged."""
    number = COLOURS.get(cell.strip())
    return f"\x1b[{number}m{cell}\x1b[0m" if number else cell


COMMANDS = {
    "runs": Command("List runs: when, what, how they ended, and their headline figure.", runs_arguments, runs),
    "report": Command(
        "Compare runs on one page: what differs between them, and their results.", report_arguments, report
    ),
    "resume": Command("Run the missing and failed jobs of a sweep.", resume_arguments, resume),
    "study": Command("Run many experiments, and answer their questions on one page.", study_arguments, study),
    "show": Command("List the groups, the choices of a group, or the keys of a choice.", show_arguments, show),
}
