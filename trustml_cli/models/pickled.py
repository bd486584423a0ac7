"""Safety check of a file of torch.save by its pickle opcodes alone: nothing is imported, called or allocated.

`torch.load(weights_only=True)` runs no code, but it calls types that take any amount of memory, such as
`bytearray(4_000_000_000)`, and computes hashes in exponential time, such as that of a tuple of the same tuple twice,
nested forty deep. This check accepts only what a state_dict needs.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

from trustml_cli.system.user_file import MB, opened

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle in a file of torch.save before 1.6
PROTOCOL = 2
PARTS = 5  # pickles in such a file: magic, version, system, content, keys of the storages
LARGEST_PICKLE = 64 * MB
LONGEST_NAME = 1000  # characters of a tensor's name

REBUILT = {
    "_rebuild_tensor": "", "_rebuild_tensor_v2": "", "_rebuild_tensor_v3": "", "_rebuild_parameter": "",
    "_rebuild_sparse_tensor": "sparse", "_rebuild_sparse_csr_tensor": "sparse", "_rebuild_qtensor": "quantised",
    "_rebuild_nested_tensor": "nested", "_rebuild_meta_tensor_no_storage": "on the device meta, without values",
}  # fmt: skip
"""The functions of torch._utils that make tensors, and why a network does not accept the result; empty if it does."""

BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
    "Bool": 1, "Untyped": 1, "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4,
    "QUInt4x2": 1, "QUInt2x4": 1,
}  # fmt: skip
"""Bytes of an element in each kind of storage."""

CALLED = {"collections.OrderedDict", "torch.Size", "torch.device", "torch.serialization._get_layout", "_codecs.encode"}
"""The other functions that may be called; none takes more memory than its arguments."""


class NotWeights(Exception):
    """The file does more than a state_dict needs, or holds a tensor of an unsupported kind."""


@dataclass(frozen=True)
class Named:
    """A function or type, by module and name."""

    name: str


@dataclass(frozen=True)
class Made:
    """Placeholder for the result of a call; `odd` names the unsupported kind of a tensor, or is empty."""

    odd: str = ""


def check_pickled(path: Path) -> None:
    """Raise `NotWeights` unless the file holds only tensors, numbers, strings, and lists and mappings of these.

    The storages together must not take more bytes than the file has. Raises ValueError where it is no file of
    torch.save, or damaged.
    """
    with opened(path) as file:
        size = path.stat().st_size
        begins = file.read(4)
        file.seek(0)
        used = check_zip(file) if begins == b"PK\x03\x04" else check_legacy(file)
    if used > size:
        raise NotWeights(f"it claims {used:,} bytes of tensors and has {size:,}")


def check_zip(file: BinaryIO) -> int:
    """Bytes of the storages in a file of torch.save since 1.6, an archive of one pickle and the storages."""
    try:
        with ZipFile(file) as archive:
            parts = archive.infolist()
            names = [part.filename for part in parts]
            pickles = [part for part in parts if part.filename.rpartition("/")[2] == "data.pkl"]
            if len(set(names)) < len(names) or len(pickles) != 1:
                raise NotWeights("it is an archive with two parts of one name, or without data.pkl")
            if any(part.compress_type or part.file_size != part.compress_size for part in parts):
                raise NotWeights("it is compressed, which torch.save never does: it may fill the memory")
            if (used := pickles[0].file_size) > LARGEST_PICKLE:
                raise NotWeights(f"its data.pkl has {used:,} bytes; {LARGEST_PICKLE:,} at most are read")
            return Machine().run(io.BytesIO(archive.read(pickles[0])))
    except (BadZipFile, NotImplementedError, EOFError, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def check_legacy(file: BinaryIO) -> int:
    """Bytes of the storages in a file of torch.save before 1.6, several pickles with the storages after them."""
    begins = file.read(64)
    opcode, magic, _ = next(iter(pickletools.genops(begins[2:]))) if begins[:1] == b"\x80" else (None, None, None)
    if opcode is None or magic != MAGIC:
        raise ValueError("it is no file of torch.save; one of safetensors needs the ending .safetensors")
    file.seek(0)
    return sum(Machine().run(file) for _ in range(PARTS))


class Machine:
    """A pickle machine that follows the opcodes like Python's own, but builds placeholders for what they name."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, int] = {}

    def run(self, file: BinaryIO) -> int:
        """Follow one pickle to its end; returns the total bytes of the storages that it names."""
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    return sum(self.storages.values())
                self.follow(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError("its pickle is damaged") from error
        raise ValueError("its pickle has no end")

    def follow(self, name: str, argument: Any) -> None:
        """Apply one opcode to the stack."""
        if name in VALUES:
            self.stack.append(VALUES[name](argument))
        elif name == "PROTO":
            if argument != PROTOCOL:
                raise NotWeights(f"its pickle is of protocol {argument}; torch.save writes {PROTOCOL} by itself")
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "TUPLE":
            items = self.since_mark()  # before the append, because it replaces self.stack
            self.stack.append(tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in ("APPEND", "APPENDS"):
            items = self.since_mark() if name == "APPENDS" else [self.stack.pop()]
            self.stack[-1].extend(items)
        elif name == "SETITEM":
            value, key = self.stack.pop(), self.stack.pop()
            self.put(key, value)
        elif name == "SETITEMS":
            items = self.since_mark()
            for key, value in zip(items[::2], items[1::2], strict=True):
                self.put(key, value)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.stack.append(Named(f"{'builtins' if module == '__builtin__' else module}.{attribute}"))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self.called(function, arguments))
        elif name == "BUILD":
            self.stack.pop()  # the attributes of an OrderedDict, where state_dict stores its version
            if not isinstance(self.stack[-1], dict | Made):
                raise NotWeights("it sets attributes of something else than a mapping")
        elif name == "BINPERSID":
            self.stack.append(self.storage(self.stack.pop()))
        else:
            raise NotWeights(f"its pickle has an opcode that no state_dict needs ({name})")

    def since_mark(self) -> list[Any]:
        """Pop the items pushed since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, key: Any, value: Any) -> None:
        """Set an entry of the mapping on top of the stack."""
        if not isinstance(key, str | int):  # the hash of a nested tuple can take exponential time
            raise NotWeights("it has a mapping with other keys than names and numbers")
        if isinstance(key, str) and len(key) > LONGEST_NAME:
            raise NotWeights(f"it has a name of {len(key):,} characters")
        if isinstance(value, Made) and value.odd:
            raise NotWeights(f"tensor {key} is {value.odd}; a dense tensor of numbers is needed")
        self.stack[-1][key] = value

    def called(self, function: Any, arguments: Any) -> Any:
        """A placeholder for the result of calling a function that a pickle names."""
        name = function.name if isinstance(function, Named) else "?"
        module, _, last = name.rpartition(".")
        if module == "torch._utils" and last in REBUILT:
            odd = REBUILT[last] or next((one.odd for one in arguments if isinstance(one, Made) and one.odd), "")
            return Made(odd)
        if name not in CALLED:
            raise NotWeights(f"it calls {name}: loading it could run code or fill the memory")
        if name == "collections.OrderedDict":
            return self.ordered(arguments)
        return Made()

    def ordered(self, arguments: Any) -> dict[Any, Any]:
        """The mapping for the arguments of an OrderedDict: none, or a list of pairs."""
        made: dict[Any, Any] = {}
        self.stack.append(made)
        for pairs in arguments:
            for key, value in pairs:
                self.put(key, value)
        return self.stack.pop()  # type: ignore[no-any-return]

    def storage(self, wanted: Any) -> Made:
        """A storage outside the pickle: ('storage', type, key, device, elements), and in old files a view of it."""
        kind, type_, key, device, elements = wanted[:5]
        name = type_.name.rpartition(".")[2].removesuffix("Storage") if isinstance(type_, Named) else ""
        if kind != "storage" or name not in BYTES or not isinstance(key, str) or not isinstance(elements, int):
            raise NotWeights("it asks for something else than a storage of numbers")
        self.storages[key] = max(self.storages.get(key, 0), BYTES[name] * abs(elements))
        odd = "quantised" if name.startswith("Q") else ""
        return Made("on the device meta, without values" if str(device) == "meta" else odd)


VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING"),
                    lambda argument: argument),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
}  # fmt: skip
"""The opcodes that push a value, and the value; `Machine.follow` handles the others that torch reads."""
