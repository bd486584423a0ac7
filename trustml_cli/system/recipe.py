"""What made a trained network, as facts that can be compared: objects with their fields, and the code behind them."""

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from trustml_cli.system.files import file_digest

OURS = __name__.partition(".")[0]
CHANGES_NOTHING = MappingProxyType({"changes nothing": True})
"""The metadata of a dataclass field that decides nothing about the weights, as in `field(metadata=CHANGES_NOTHING)`."""

Code = tuple[str, frozenset[str], bool]
"""Of a module: the digest of its file, the modules that it may import, and whether it imports by computed names."""


def recipe_of(thing: Any) -> Any:
    """What `thing` is, in short, as JSON has it; two things that may make different networks differ.

    A dataclass is its module, its name, its fields, and the user's code that it comes from (`code_of`); fields that
    are declared with `CHANGES_NOTHING` are left out. Of a file its content counts, not its name. Raises TypeError for
    what cannot be told apart from others of its kind.
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        names = [each.name for each in fields(thing) if not CHANGES_NOTHING.items() <= each.metadata.items()]
        named = [str(getattr(thing, name)).partition(":")[0] for name in getattr(thing, "names_code", ())]
        code = code_of([*(cls.__module__ for cls in type(thing).__mro__), *named])
        return {
            "is": f"{type(thing).__module__}.{type(thing).__qualname__}",
            **{name: recipe_of(getattr(thing, name)) for name in names},
            **({"code": code} if code else {}),
        }
    if isinstance(thing, Mapping):
        return {str(key): recipe_of(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [recipe_of(value) for value in thing]
    if isinstance(thing, Enum):
        return thing.name
    if isinstance(thing, Path):
        return f"sha256 {file_digest(thing)}" if thing.is_file() else str(thing)
    if thing is None or isinstance(thing, str | int | float):
        return thing
    raise TypeError(f"{type(thing).__name__}: says nothing of itself that could be compared; leave it out of the key")


COMMON = frozenset({OURS, "torch", "torchvision", "numpy", *sys.stdlib_module_names, *sys.builtin_module_names})


def code_of(modules: Iterable[str]) -> dict[str, str]:
    """The user's code behind `modules`, by module: of each of them and of what they import a digest of its file.

    What is installed stands there with its version; our own code, Python's and torch's are left out. Imports are read
    from the source, so that the same code gives the same answer whatever else is loaded. Where a module imports by
    names that it computes, all loaded modules of the user's count.
    """
    found: dict[str, str] = {}
    waiting, seen = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        package = name.partition(".")[0]
        file = None if name in seen or package in COMMON else file_of(name)
        seen.add(name)
        if file is None:
            continue
        if is_installed(file):
            found |= {package: version_of(package)}
            continue
        found[name], imports, computed = read_code(name, file)
        waiting += [*parents(name), *imports, *(loaded() if computed else ())]
    return dict(sorted(found.items()))


def file_of(name: str) -> Path | None:
    """The file of the module called `name`, be it loaded or not; None where there is none, or no such module."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # to find it would run the code of its parent
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def is_installed(file: Path) -> bool:
    """Whether it came with Python or by a package manager, so that its version says what is in it."""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts) or file.is_relative_to(
        sysconfig.get_path("stdlib")
    )


@cache
def version_of(package: str) -> str:
    """The version of an installed package, by the name that is imported.

    Most are distributed under that name; to find the others takes seconds, for the files of every package are listed.
    """
    with suppress(PackageNotFoundError):
        return f"{package} {version(package)}"
    return ", ".join(sorted(f"{name} {version(name)}" for name in set(packages_distributions().get(package, ()))))


_read: WeakKeyDictionary[ModuleType, Code] = WeakKeyDictionary()


def read_code(name: str, file: Path) -> Code:
    """What the file of a module says; of one that is loaded, what it said when it was first asked for.

    A file that is edited while a sweep runs is not what the jobs of the sweep go on to run.
    """
    module = sys.modules.get(name)
    if module is not None and module in _read:
        return _read[module]
    try:
        content = file.read_bytes()
    except OSError:  # it is in an archive
        content = module.__loader__.get_data(str(file)) if module is not None else b""  # type: ignore[union-attr]
    imports, computed = imports_of(content, name, file) if file.suffix == ".py" else (set(), False)
    code = sha256(content).hexdigest(), frozenset(imports), computed
    if module is not None:
        _read[module] = code
    return code


def imports_of(source: bytes, name: str, file: Path) -> tuple[set[str], bool]:
    """The modules that module `name` may import, anywhere in its source; and whether it computes the names of some."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    computed = False
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):  # not loaded yet, and never to be
        return found, computed
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__", "spec_from_file_location"):
            first = node.args[0] if node.args else None
            if called(node) != "spec_from_file_location" and isinstance(first, ast.Constant):
                found.add(absolute(str(first.value), package))
            else:
                computed = True
    return {part for each in found for part in (each, *parents(each))}, computed


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def absolute(name: str, package: str) -> str:
    """The full name of a module that is named from within `package`."""
    try:
        return resolve_name(name, package)
    except ImportError:  # beyond the top, which Python would refuse too
        return name.lstrip(".")


def parents(name: str) -> Iterator[str]:
    """The packages that a module is in, which are run before it."""
    while name := name.rpartition(".")[0]:
        yield name


def loaded() -> list[str]:
    """The loaded modules of the user's, by name."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and name != "__main__" and not is_installed(Path(file))]
