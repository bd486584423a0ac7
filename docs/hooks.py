"""MkDocs hook: generates the reference and the gallery, and adds the pages that are not in docs/.

The reference has no text of its own: descriptions, keys and their comments come from the YAML files, as `trustml show`
prints them; docstrings and columns from the code.
"""

import inspect
import re
import shlex
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import yaml
from hydra.utils import get_object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from trustml_cli.cli.show import below, content_of, groups, keys
from trustml_cli.config.groups import config_folder, description, is_variant
from trustml_cli.metrics.columns import Better, Column

sys.path.insert(0, str(Path(__file__).parent))
from gallery import PICTURES

ROOT = Path(__file__).parent.parent
COPIED = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/results.md": "benchmarks.md",
    "benchmarks/growth.png": "growth.png",
}
"""Files outside docs/ that the site shows, and their names there."""

LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
ELSEWHERE = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add a page for each group to the section `Reference`."""
    section = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    section[2:2] = [f"reference/{group}.md" for group in reference_groups()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those outside docs/."""
    for name, content in generated().items():
        files.append(File.generated(config, name, content=content))
    for source, name in COPIED.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Point links at the site's pages; a link to a file that the site does not show becomes the file's name."""
    name = page.file.src_uri
    source = next((path for path, copy in COPIED.items() if copy == name), f"docs/{name}")
    return LINK.sub(lambda link: f"]({in_site(link[1], source, name)}", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Take the links to files that the site does not show out of a page; their text stays."""
    return re.sub(r'<a href="file:[^"]*">(.*?)</a>', r"\1", html)


def on_post_page(output: str, page: Any, **_: object) -> str:
    """Refuse a page that loads something from elsewhere."""
    if found := ELSEWHERE.search(output):
        raise ValueError(f"{page.file.src_uri}: loads from elsewhere: {found[0]}")
    return output


def in_site(link: str, source: str, name: str) -> str:
    """A relative link in `source`, a file of the repository, as a link on the page `name`; `file:PATH` if not shown."""
    path = normpath(str(PurePosixPath(source).parent / link))
    shown = COPIED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return relpath(shown, str(PurePosixPath(name).parent)) if shown else f"file:{path}"


def reference_groups() -> list[str]:
    """The groups that have a page of their own."""
    return [group for group in groups([config_folder()]) if group != "task"]


@cache
def generated() -> dict[str, str]:
    """The text of each generated page by its name."""
    pages = {"gallery.md": gallery(), "reference/index.md": overview(), "reference/tasks.md": tasks()}
    return pages | {f"reference/{group}.md": group_page(group) for group in reference_groups()}


def choices(group: str) -> dict[str, Path]:
    """The files of a group's choices, without variants."""
    return {name: file for name, file in groups([config_folder()])[group].items() if not is_variant(file)}


def gallery() -> str:
    """A picture for each task, with its command."""
    parts = [
        "# Gallery\n\nOne picture of each task, made by the command below it on embedded data, most of them within a "
        "minute. Numbers change a little with the number of threads: fgsm is shown with two, the others with one "
        "(`OMP_NUM_THREADS=1`)."
    ]
    for task, file in choices("task").items():
        words, _ = PICTURES[task]
        command = shlex.join(["trustml", f"task={task}", *words])
        parts.append(
            f"## {task}\n\n{sentence(file)} [Keys and columns](reference/tasks.md#{task}).\n\n"
            f"![{task}: {sentence(file)}](gallery/{task}.png)\n\n```\n{command}\n```"
        )
    return "\n\n".join(parts) + "\n"


def overview() -> str:
    """The groups and the keys at the top level."""
    text = (config_folder() / "config.yaml").read_text(encoding="utf-8")
    top = [(key, *rest) for key, rest in below(yaml.compose(text), text, "").items() if not key.startswith("hydra.")]
    pages = {group: f"[{group}]({group}.md)" for group in reference_groups()} | {"task": "[task](tasks.md)"}
    rows = [(pages.get(group, group), ", ".join(map(code, choices(group)))) for group in groups([config_folder()])]
    return (
        "# Reference\n\nEvery command names a task and the choices of the groups that the task takes. `trustml show "
        "GROUP` and `trustml show GROUP=CHOICE` print the same tables; `trustml task=TASK --cfg job` prints every "
        f"key of a command.\n\n## Groups\n\n{table(('group', 'choices'), rows)}\n\n"
        f"## Keys at the top level\n\n{key_table(top)}\n"
    )


def tasks() -> str:
    """Keys and columns of every task."""
    parts = [
        "# Tasks\n\nA row of metrics.csv begins with `task`, `dataset`, `model` and `seed`. Every proportion is "
        "followed by its 95 % interval and its number of examples: `NAME_ci_low`, `NAME_ci_high`, `NAME_n`."
    ]
    for task, file in choices("task").items():
        kind = target(file)
        parts += [f"## {task}", sentence(file), documentation(kind), key_table(rows_of(file))]
        parts.append(table(("column of metrics.csv", "", "better", "in every row"), map(column, kind.columns)))
    return "\n\n".join(filter(None, parts)) + "\n"


def group_page(group: str) -> str:
    """Every choice of a group with its keys."""
    if group in ("experiment", "study"):  # they set keys of other groups
        return f"# {group}\n\n{described(choices(group))}\n"
    parts = [f"# {group}"]
    for name, file in choices(group).items():
        parts += [f"## {name}", sentence(file), documentation(target(file)), key_table(rows_of(file))]
    variants = {name: file for name, file in groups([config_folder()])[group].items() if is_variant(file)}
    if variants:
        parts += ["## Variants", "Other values of these choices, for tasks and experiments.", described(variants)]
    return "\n\n".join(filter(None, parts)) + "\n"


def described(files: dict[str, Path]) -> str:
    """A table of choices with their descriptions."""
    return table(("choice", "what"), [(code(name), prose(description(file))) for name, file in files.items()])


def target(file: Path) -> Any:
    """The class or function that a choice, or the choice that it extends, names; None if it is not one of ours."""
    _, content = content_of(file)
    named = [content, *(value for value in content.values() if isinstance(value, dict))]
    if path := next((str(node["_target_"]) for node in named if "_target_" in node), ""):
        return get_object(path) if path.startswith("trustml_cli.") else None
    extended = (item for item in content.get("defaults", []) if isinstance(item, str) and item != "_self_")
    return next((target(file.with_name(f"{name}.yaml")) for name in extended), None)


def documentation(kind: Any) -> str:
    """The docstring of a class."""
    return inspect.cleandoc(kind.__doc__) if kind is not None and kind.__doc__ else ""


def sentence(file: Path) -> str:
    """The description of a choice as a sentence."""
    text = description(file)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def rows_of(file: Path) -> list[tuple[str, str, str]]:
    """Key, default and comment, as `trustml show` prints them."""
    return [(key, *rest) for key, rest in keys(file).items()]


def key_table(rows: Iterable[tuple[str, str, str]]) -> str:
    """A table of keys."""
    return table(("key", "default", "what"), [(code(key), code(value), prose(text)) for key, value, text in rows])


def column(column: Column) -> tuple[str, ...]:
    """The row of a column of metrics.csv."""
    kind = "condition" if column.condition else "headline" if column.headline else "value"
    better = "" if column.better is Better.neither else column.better.value
    return code(column.name), kind, better, "yes" if column.always else "where it applies"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; nothing without rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    head = list(header)
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines]) if lines else ""


def code(text: str) -> str:
    """A text as code in a cell."""
    return f"`{escaped(text)}`" if text else ""


def prose(text: str) -> str:
    """A comment of the YAML as text in a cell."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", escaped(text))


def escaped(text: str) -> str:
    """A text without what ends a cell."""
    return text.replace("|", "\\|")
