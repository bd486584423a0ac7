"""Ownership of a directory: a run's may be cleared for the next run, the user's own files are never touched."""

import re
from contextlib import suppress
from pathlib import Path

from trustml_cli.results.run_facts import UNREADABLE, RunFacts, read_facts
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import is_there, refuse_links

FIRST = ("config.yaml", "metrics.csv", "history.csv", "report.html")
"""Files that every run writes; others are named in its run.json under `files`."""
FOLDERS = ("plots", "artifacts")
TABLES = ("sweep.csv", "summary.csv", "sweep.png", "index.html")
OURS = re.compile(rf"(({'|'.join(FOLDERS)})/)?[^./\0][^/\0]*\.(csv|png|safetensors|npz)|artifacts/slider\.json")


def refuse_others(directory: Path) -> None:
    """Raise `InputError` if `directory` holds no run, but files with the names that a run uses."""
    for name in (*FIRST, *FOLDERS):
        if is_there(directory / name):
            raise InputError(
                f"hydra.run.dir: {directory} holds {name} but no run (run.json); choose another, or move it away"
            )


def refuse_others_sweep(directory: Path) -> None:
    """`refuse_others` and `refuse_links` for the directory of a sweep."""
    refuse_links(directory, ("multirun.yaml", ".submitit"))
    for name in TABLES:
        if is_there(directory / name) and not (directory / "multirun.yaml").is_file():
            raise InputError(
                f"hydra.sweep.dir: {directory} holds {name} but no sweep (multirun.yaml); choose another, or move it"
            )


def earlier_run(directory: Path) -> RunFacts:
    """The facts in the run.json of `directory`. Raises `InputError` unless trustml wrote it.

    A run that was killed right after claiming the directory leaves an empty file, which has no facts.
    """
    known = read_facts(directory)
    file = directory / "run.json"
    empty = file.is_file() and not file.is_symlink() and file.stat().st_size == 0
    if known.status == UNREADABLE or (not empty and (known.trustml is None or known.command[0] != "trustml")):
        why = known.error or "run.json: says nothing of trustml"
        raise InputError(f"hydra.run.dir: {directory} holds no run that could be done again ({why}); choose another")
    return known


def clear(directory: Path, known: RunFacts) -> None:
    """Remove the files of the run with the facts `known` from `directory`: those that it lists, its run.json last.

    Hydra's own files already belong to the next run. All other files stay.
    """
    told = known.get("files")
    files = [name for name in told if isinstance(name, str)] if isinstance(told, list) else []
    names = [*FIRST, *(name for name in files if OURS.fullmatch(name))]
    stems = "|".join(re.escape(Path(name).stem) for name in (*names, "run.json"))
    half = re.compile(rf"\.({stems})-[0-9a-f]{{8}}\.\w+")  # temporary files of a killed run
    for folder in (directory / name for name in ("", *FOLDERS)):
        if folder.is_dir():
            names += [str(path.relative_to(directory)) for path in folder.iterdir() if half.fullmatch(path.name)]
    names += [path.name for path in directory.glob("events.out.tfevents.*")] if told is not None else []
    for name in (*names, "run.json"):
        if (directory / name).is_file():
            (directory / name).unlink()
    for name in FOLDERS:
        with suppress(OSError):  # the folder is not empty, or absent
            (directory / name).rmdir()
