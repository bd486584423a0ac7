"""The distribution's name and extras, as printed anywhere: a wrong one would install a stranger's package."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

from trustml_cli.config.messages import EXTRAS as LAUNCHERS
from trustml_cli.system.distribution import DISTRIBUTION, needing
from trustml_cli.system.errors import InputError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"].keys()
OTHERS = {"mlflow"}  # packages of other projects that a text tells to install
REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[([\w,-]+)\])?$")
PRINTED = re.compile(r"pip\s+install\s+(?:-[-\w]+\s+)*['\"]?([\w.\[\],-]+)")
NAMED = re.compile(r"\btrustml(?:[-_]cli)?\[[\w,-]+\]")  # also without the command before it
TEXTS = [
    file
    for place in ("trustml_cli", "conf", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")
    for file in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*")))
    if file.suffix in {".py", ".yaml", ".md", ".html", ".toml"}
]


def requirements() -> Iterator[tuple[Path, str]]:
    """Every requirement in a text, with the file."""
    for file in TEXTS:
        text = file.read_text()
        for found in (*PRINTED.findall(text), *NAMED.findall(text)):
            yield file, found.rstrip(".,") or found


def named_in_code() -> Iterator[tuple[Path, str]]:
    """The extras in calls of `needing` and `install_command`."""
    for file in sorted((ROOT / "trustml_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"needing", "install_command"}
                and isinstance(node.args[0], ast.Constant)
            ):
                yield file, node.args[0].value


def test_the_distribution_is_the_one_of_pyproject_and_is_installed() -> None:
    assert PROJECT["name"] == DISTRIBUTION == metadata(DISTRIBUTION)["Name"] == "trustml-cli"


def test_every_printed_install_command_names_the_distribution_and_an_extra_that_exists() -> None:
    found = list(requirements())
    assert {"trustml-cli[joblib]", "trustml-cli[packed]", "trustml-cli"} <= {requirement for _, requirement in found}
    for file, requirement in found:
        parts = REQUIREMENT.match(requirement)
        assert parts, f"{file}: {requirement}"
        name, extras = parts.groups()
        allowed = {DISTRIBUTION, *OTHERS, *("." if file.suffix == ".md" else ())}  # a clone has the README
        assert name in allowed, f"{file} tells to install {name}"
        assert {*(extras or "").split(",")} - {""} <= EXTRAS, f"{file}: {requirement} has no such extra"


def test_every_extra_in_a_message_exists() -> None:
    found = list(named_in_code())
    assert {"packed", "parquet", "mlflow"} <= {extra for _, extra in found}
    for file, extra in [*found, *((Path("messages.py"), extra) for extra in LAUNCHERS)]:
        assert extra in EXTRAS, f"{file}: {extra}"


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    line = r"^task\.x: needs the extra packed \(No module named 'nix'\); .*: pip install 'trustml-cli\[packed\]'$"
    with pytest.raises(InputError, match=line), needing("packed", "task.x"):
        import nix  # type: ignore[import-not-found]  # noqa: F401
