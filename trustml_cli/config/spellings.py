"""Spellings of this field on a command line: budgets as fractions (8/255), and names that other libraries use."""

import os
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil

from trustml_cli.system.errors import InputError

NOTES = "TRUSTML_SPELLINGS"  # environment variable: what this command line was understood as, for the log of each job

ALIASES = {
    "task.epsilon": ("eps", "epsilon", "epsilons", "task.eps", "task.epsilons", "attack.eps", "attack.epsilon"),
    "task.eot": ("eot", "eot_iter", "attack.eot", "attack.eot_iter"),
    "task.backward": ("attack.backward",),
    "task.images": ("n_examples", "n_ex", "task.n_examples", "task.n_ex"),
    "attack.norm": ("norm", "threat_model", "attack.threat_model"),
    "attack.step_size": ("alpha", "step_size", "attack.alpha", "attack.eps_step", "attack.eps_iter"),
    "attack.steps": ("attack.max_iter", "attack.nb_iter", "attack.n_iter"),
    "attack.restarts": ("n_restarts", "attack.n_restarts"),
    "attack.queries": ("n_queries", "attack.n_queries"),
    "defence.epsilon": ("defence.eps",),
    "defence.step_size": ("defence.alpha",),
    "study.quick": ("quick",),
}
"""Keys, with the names that foolbox, torchattacks, ART, AutoAttack and RobustBench have for them."""

NORMS = {"Linf": "linf", "L_inf": "linf", "l_inf": "linf", "inf": "linf", "L2": "l2", "L1": "l1", "L0": "l0",
         "2": "l2", "1": "l1", "0": "l0"}  # fmt: skip
NORM = re.compile(r"(attack|defence|references\.\w+|attacks\.\w+|methods\.\w+)\.norm")
LENGTHS = re.compile(r"(.*\.)?(epsilon|step_size|start_radius|std|jump|step|amplitude|brightness)")
"""Keys in pixel units: their fractions become decimals before directories and columns are named by them."""

NUMBER = r"(?:\d+\.?\d*|\.\d+)"
FRACTION = re.compile(rf"(?<![\w./]){NUMBER}/{NUMBER}(?![\w./])")
RANGE = re.compile(r"range\(([^()]*/[^()]*)\)")
WORD = re.compile(r"(\+{0,2})([\w.]+)=(.*)", re.DOTALL)


def understood(words: Sequence[str], exists: Callable[[str, list[str]], bool]) -> list[str]:
    """The overrides of a command line with our names for `ALIASES` and norms, and decimals for fractions.

    `exists(key, words)` says whether these words compose a config with a dotted key, so that a method of the user's
    keeps its own names. What was renamed is kept for `notes`. Raises `InputError` if a key is given by both names, or
    a fraction divides by zero.
    """
    real = {alias: key for key, names in ALIASES.items() for alias in names}
    given = {match[2] for word in words if (match := WORD.fullmatch(word))}
    others = [word for word in words if word.lstrip("+").partition("=")[0] not in real]
    result, renamed = [], []
    for word in words:
        if not (match := WORD.fullmatch(word)):
            result.append(word)
            continue
        plus, key, value = match.groups()
        if key in real and not ("." in key and exists(key, others)):
            if real[key] in given:
                raise InputError(f"{key}: is read as {real[key]}, which the command gives too; leave one out")
            given.add(real[key])
            renamed.append(f"{key} is read as {real[key]}")
            key = real[key]
        if NORM.fullmatch(key):
            norms = re.sub(r"\w+", lambda name: NORMS.get(name[0], name[0]), value)
            renamed += [f"{value} is read as {norms}"] if norms != value else []
            value = norms
        result.append(f"{plus}{key}={decimals(key, value)}")
    os.environ[NOTES] = "; ".join(renamed)
    return result


def notes() -> str:
    """What `understood` renamed in this command, or in the one that launched this process; usually nothing."""
    return os.environ.get(NOTES, "")


def decimals(key: str, value: str) -> str:
    """The value of an override with decimals for fractions, also in lists, sweeps and ranges, if `key` is a length."""
    if not LENGTHS.fullmatch(key):
        return value
    try:
        return FRACTION.sub(lambda match: repr(float(ratio(match[0]))), RANGE.sub(exact_range, value))
    except ZeroDivisionError:
        raise InputError(f"{key}: {value} divides by zero") from None


def number(value: object) -> object:
    """A fraction as the number that it is; any other value unchanged. Raises `ZeroDivisionError`."""
    return float(ratio(value)) if isinstance(value, str) and FRACTION.fullmatch(value) else value


def ratio(text: str) -> Fraction:
    """A number or a fraction, exact."""
    above, _, below = text.partition("/")
    return Fraction(above) / Fraction(below or 1)


def exact_range(match: re.Match[str]) -> str:
    """Hydra's `range([START,] STOP [, STEP])` with fractions in it, as the choice of its values; STOP is not one."""
    words = [word.strip() for word in match[1].split(",")]
    if not (1 <= len(words) <= 3 and all(re.fullmatch(rf"-?{NUMBER}(/{NUMBER})?", word) for word in words)):
        return match[0]
    start, stop, step = [*([Fraction(0)] if len(words) == 1 else []), *map(ratio, words), Fraction(1)][:3]
    values = [start + step * place for place in range(ceil((stop - start) / step))]
    return f"choice({','.join(repr(float(value)) for value in values)})" if values else match[0]
