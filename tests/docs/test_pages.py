"""The README and docs/: every page, link, command and task in them is there. `make docs` checks anchors too."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from posixpath import normpath

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.configs import choices, composed
from tests.helpers import Cli
from trustml_cli.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
PLACEHOLDER = re.compile(r"…|\b[A-Z]{3,}\b(?![\w-])|[\w.]+\.\.\.")


@pytest.fixture(scope="module")
def hooks() -> Iterator[object]:
    """docs/hooks.py, which makes the pages that lie in no file."""
    pytest.importorskip("mkdocs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        import hooks  # type: ignore[import-not-found]

        yield hooks
        sys.modules.pop("hooks")


def commands(page: Path) -> Iterator[tuple[str, ...]]:
    """The words after `trustml` of each command on a page, but for those with a placeholder."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(block for language, block in FENCE.findall(text) if not language).replace("\\\n", " ")
    lines = re.findall(r"^trustml (.*)$", blocks, re.MULTILINE)
    for command in [*lines, *re.findall(r"`trustml ([^`]+)`", FENCE.sub("", text))]:
        words = shlex.split(command.replace("\n", " "), comments=True)
        if words and not any(map(PLACEHOLDER.search, words)):
            yield tuple(words)


def test_every_page_in_the_navigation_exists_and_every_page_is_there(hooks) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    entries = re.findall(r"[\w/]+\.md", re.sub("#.*", "", navigation))
    shown = {*(page.name for page in (ROOT / "docs").glob("*.md")), *hooks.generated(), *hooks.COPIED.values()}
    assert len(entries) == len(set(entries)) > 20
    assert set(entries) <= shown
    groups = {f"reference/{group}.md" for group in hooks.reference_groups()}
    assert {name for name in shown if name.endswith(".md")} == {*entries, *groups}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path, hooks) -> None:
    in_docs = {f"docs/{name}" for name in hooks.generated()} if page.parent.name == "docs" else set()
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path = normpath((page.parent / link).relative_to(ROOT))
        assert path in in_docs or (ROOT / path).exists(), link


@pytest.mark.parametrize(
    ("link", "source", "name", "shown"),
    [
        ("results.md", "docs/speed.md", "speed.md", "results.md"),
        ("../benchmarks/results.md", "docs/speed.md", "speed.md", "benchmarks.md"),
        ("docs/results.md", "CONTRIBUTING.md", "contributing.md", "results.md"),
        ("../tests/faults/test_fuzz.py", "docs/guarantees.md", "guarantees.md", "file:tests/faults/test_fuzz.py"),
        ("tasks.md", "docs/reference/index.md", "reference/index.md", "tasks.md"),
        ("../glossary.md", "docs/reference/index.md", "reference/index.md", "../glossary.md"),
    ],
)
def test_a_link_leads_to_the_page_in_the_site(hooks, link: str, source: str, name: str, shown: str) -> None:
    assert hooks.in_site(link, source, name) == shown


def composable(word: str) -> str:
    """An override without its sweep: the first value."""
    override = OverridesParser.create().parse_override(word)
    return f"{word.partition('=')[0]}={next(iter(override.sweep_iterator()))}" if override.is_sweep_override() else word


@pytest.mark.parametrize(
    ("pages", "least"),
    [
        (lambda name: name not in ("results.md", "experiments.md", "CHANGELOG.md"), 30),
        pytest.param(lambda name: name in ("results.md", "experiments.md"), 40, marks=pytest.mark.faults),
    ],
    ids=["guides", "results"],
)
def test_every_command_composes(pages: Callable[[str], bool], least: int) -> None:
    found = {command for page in PAGES if pages(page.name) for command in commands(page)}
    assert len(found) > least
    for words in found:
        if words[0] == "study":
            assert words[1] in choices("study") or "--config-dir" in words, words
        elif words[0] in COMMANDS or "=" not in "".join(words):
            assert words[0] in COMMANDS or words[0].startswith("-"), words
        elif "--config-dir" not in words and "-sc" not in words:
            given = [word for word in words if "=" in word and not word.startswith(("outliers.", "others."))]
            if [word.removeprefix("experiment=") for word in given] not in ([name] for name in choices("experiment")):
                composed(*map(composable, given))


def test_what_a_run_leaves_lists_every_table() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "trustml_cli" / "tasks").glob("*.py"))
    tables = set(re.findall(r"record\.(?:table|append)\(\s*\"(\w+)\"", source))
    assert {"by_class", "columns"} < tables
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    assert [name for name in sorted(tables) if f"`{name}.csv`" not in page] == []


def test_the_methods_at_a_glance_name_the_tasks_that_use_each_group() -> None:
    text = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "conf" / "task").glob("*.yaml")}
    own = {task: set(re.findall(r"^ *- (?:override )?/(\w+)", each, re.MULTILINE)) for task, each in text.items()}
    bases = {task: re.findall(r"^  - (\w+)$", each, re.MULTILINE) for task, each in text.items()}
    takes = {task: own[task].union(*(own.get(base, set()) for base in bases[task])) for task in text}
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+?) \|", (ROOT / "docs" / "methods.md").read_text(), re.MULTILINE)
    asked = [(set(re.findall(r"\w+", groups)), used) for groups, used in rows if "task" not in groups.split("`")]
    assert len(asked) > 5
    for groups, used in asked:
        named = set(re.findall(r"`(\w+)`", used)) & {*takes}
        if named and groups <= set().union(*takes.values()):
            using = {task for task, taken in takes.items() if taken & groups}
            assert named <= using if " other" in used else named == using, groups


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflows = [ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("*.yml")]
    written = [
        re.findall(r"(?:^|`|step |run: )make ((?:[a-z-]+ ?)+)", file.read_text(), re.M) for file in [*PAGES, *workflows]
    ]
    named = {name for found in written for words in found for name in words.split()}
    assert {"demo", "test", "docs", "wheel-check"} <= named <= targets


def test_the_method_of_the_guide_runs(trustml: Cli, tmp_path: Path) -> None:
    """The files and the command of docs/own_method.md, as they are written there."""
    page = ROOT / "docs" / "own_method.md"
    blocks = dict(FENCE.findall(page.read_text()))
    (tmp_path / "yours" / "attack").mkdir(parents=True)
    (tmp_path / "flicker.py").write_text(blocks["python"])
    (tmp_path / "yours" / "attack" / "flicker.yaml").write_text(blocks["yaml"])
    (command,) = (words for words in commands(page) if "--config-dir" in words)
    answer = trustml(*command, "trainer=smoke", "dataset.limit=40", "task.check_images=0", "task.epsilon=0.1")
    assert answer.returncode == 0, answer.stderr


def test_every_task_is_in_the_readme_and_in_the_gallery(hooks) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(task for task, _ in rows) == choices("task")
    assert all(len(what) < 110 for _, what in rows)
    assert sorted(hooks.PICTURES) == choices("task"), "name its plot in docs/gallery.py and run that with the task"
    for task in hooks.PICTURES:
        size = (ROOT / "docs" / "gallery" / f"{task}.png").stat().st_size
        assert 1024 < size <= 40 * 1024, task


def test_the_reference_says_what_the_yaml_says(hooks) -> None:
    page = hooks.generated()["reference/attack.md"]
    assert "| `attack.steps` | `40` |" in page
    assert "| `attack.random_start` | `true` | from anywhere in the ball; false = from the image itself |" in page
    assert "runs of `steps` ascent steps" in page  # the docstring
    assert "| `pgd_20` | variant of pgd" in page
    tasks = hooks.generated()["reference/tasks.md"]
    assert "| `robust_accuracy` | headline | higher | yes |" in tasks
    assert yaml.safe_load((ROOT / "conf/config.yaml").read_text().partition("hydra:")[0]).keys() - {"defaults"} <= set(
        re.findall(r"^\| `(\w+)` \|", hooks.generated()["reference/index.md"], re.MULTILINE)
    )
