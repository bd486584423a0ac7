"""The recipe of a trained network: comparable facts about its objects, their fields, and the code behind them."""

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
"""Metadata of a dataclass field that does not affect the weights, as in `field(metadata=CHANGES_NOTHING)`."""

Code = tuple[str, frozenset[str], bool]
"""Of a module: the digest of its file, the modules that it may import, and whether it computes names of imports."""


def recipe_of(thing: Any) -> Any:
    """A JSON value that describes `thing`; things that may yield different networks have different recipes.

    A dataclass is described by module, name, fields, and the user code behind it (`code_of`), without the fields
    declared with `CHANGES_NOTHING`. A file is described by its content, not its name. Raises TypeError for a value that
    cannot be distinguished from others of its type.
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
    """Digests of the user code behind `modules`, by module: the files of `modules` and of all that they import.

    An installed package is described by its version; trustml, the standard library and torch are left out. Imports are
    parsed from the source, so the result does not depend on which modules are loaded. If a module computes the names of
    its imports, all loaded user modules are included.
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
    """The file of the module `name`, loaded or not; None if there is no such module or it has no file."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # finding it would execute the code of its parent
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def is_installed(file: Path) -> bool:
    """Whether the file belongs to Python or to an installed package, so that a version identifies its content."""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts) or file.is_relative_to(
        sysconfig.get_path("stdlib")
    )


@cache
def version_of(package: str) -> str:
    """The version of an installed package, by its import name.

    Most distributions have the import name. Finding the others takes seconds, because all packages' files are listed.
    """
    with suppress(PackageNotFoundError):
        return f"{package} {version(package)}"
    return ", ".join(sorted(f"{name} {version(name)}" for name in set(packages_distributions().get(package, ()))))


_read: WeakKeyDictionary[ModuleType, Code] = WeakKeyDictionary()


def read_code(name: str, file: Path) -> Code:
    """The source of a module's file; for a loaded module, its source at the first call.

    The jobs of a running sweep do not execute later edits of the file.
    """
    module = sys.modules.get(name)
    if module is not None and module in _read:
        return _read[module]
    try:
        content = file.read_bytes()
    except OSError:  # it is inside an archive
        content = module.__loader__.get_data(str(file)) if module is not None else b""  # type: ignore[union-attr]
    imports, computed = imports_of(content, name, file) if file.suffix == ".py" else (set(), False)
    code = sha256(content).hexdigest(), frozenset(imports), computed
    if module is not None:
        _read[module] = code
    return code


def imports_of(source: bytes, name: str, file: Path) -> tuple[set[str], bool]:
    """The modules that `name` may import anywhere in its source, and whether it computes the names of some."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    computed = False
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):  # not loaded yet, and cannot be
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
    """The last part of the called function's name."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def absolute(name: str, package: str) -> str:
    """The absolute name of a module that is imported relative to `package`."""
    try:
        return resolve_name(name, package)
    except ImportError:  # beyond the top-level package, which Python refuses too
        return name.lstrip(".")


def parents(name: str) -> Iterator[str]:
    """The parent packages of a module, which Python executes before it."""
    while name := name.rpartition(".")[0]:
        yield name


def loaded() -> list[str]:
    """The names of all loaded user modules."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and name != "__main__" and not is_installed(Path(file))]
