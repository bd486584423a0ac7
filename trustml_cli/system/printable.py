"""Untrusted texts made safe to print: control characters are replaced by escape sequences."""

import os
import re
from typing import Any

BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # control the direction of text
CONTROLS = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI}\ud800-\udfff]")
"""C0 and C1 controls (one of which begins ANSI sequences), line and paragraph separators, and lone surrogates."""


def printable(text: str, keep: str = "") -> str:
    r"""`text` with each control character, except those in `keep`, as a Python escape sequence: \x1b, \u202e."""
    return CONTROLS.sub(lambda match: match[0] if match[0] in keep else escaped(match[0]), text)


def escaped(letter: str) -> str:
    r"""One character as \xHH or \uHHHH."""
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"


def readable(name: str) -> str:
    r"""A file name as text: its bytes decoded as UTF-8 in any locale, invalid bytes escaped: \xfc."""
    return printable(os.fsencode(name).decode("utf-8", errors="backslashreplace"))


def printable_value(value: Any) -> Any:
    """`printable` for a text; any other value unchanged."""
    return printable(value) if isinstance(value, str) else value
