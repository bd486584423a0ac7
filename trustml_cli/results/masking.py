"""Masking of texts that look like secrets, before they are written to files and pages that may be shared."""

import os
import re
from functools import lru_cache
from typing import Any

import yaml

from trustml_cli.system.yaml_text import parse_yaml

MASK = "***"
SHORTEST = 6  # minimum length of an environment variable's value that is masked; `1` would match everywhere
WORDS = r"(?:token|password|passwd|pwd|secret|api_?key|access_?key|private_?key|credentials?)"
NAME = re.compile(rf"(?:.*[._\W])?{WORDS}", re.IGNORECASE | re.DOTALL)
PLAIN = r"(?!(?:null|true|false|[-+]?[\d.]+)(?:[\s,}\]]|$))"  # values that are never secrets
ONE = rf"{PLAIN}(?:\[[^\]]*\]|\"[^\"]*\"|'[^']*'|[^\s&,}}\]\"']+)"
SAID = re.compile(rf"((?<![a-z]){WORDS}=|[{{,]\s*[\"']?[\w.-]*{WORDS}[\"']?:\s*){ONE}", re.IGNORECASE)
LINE = re.compile(rf"^([ \t]*[\"']?[\w.-]*{WORDS}[\"']?:[ \t]+){PLAIN}.+$", re.IGNORECASE | re.MULTILINE)
ADDRESS = re.compile(r"((?<![\w+.-])[\w+.-]+://)[^/\s@\"']+@")  # anchored, or matching takes quadratic time
QUERY = re.compile(rf"([?&][\w-]*(?:{WORDS}|key|sig|signature)=)[^&\s\"']+", re.IGNORECASE)


def masked(value: Any, key: str = "") -> Any:
    """`value` of plain Python, with texts that look like secrets replaced by ***, at any depth.

    These are texts under a key with a secret's name (token, password, secret, api_key …), assignments to such a name
    within a text (`token=…`), user and password in a URL, and values of environment variables with such names.
    """
    return without(known_secrets(), value, key)


def without(secrets: list[str], value: Any, key: str) -> Any:
    """`value`, which stands under `key`, masked; `secrets` are those of the environment."""
    if isinstance(value, dict):
        return {name: without(secrets, one, key if is_secret(key) else str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without(secrets, one, key) for one in value]
    if not isinstance(value, str):
        return value
    if value and is_secret(key):
        return MASK
    for secret in secrets:
        value = value.replace(secret, MASK)
    if "=" not in value and ":" not in value:  # most texts of a page; each pattern needs one of them
        return value
    value = QUERY.sub(rf"\1{MASK}", ADDRESS.sub(rf"\1{MASK}@", value))
    value = SAID.sub(rf"\1{MASK}", value)
    return LINE.sub(rf"\1{MASK}", value) if "\n" in value else value  # a single line is a message about such a key


def masked_yaml(text: str) -> str:
    """A YAML text with its secrets masked; unchanged if there are none."""
    content = parse_yaml(text)
    hidden = masked(content)
    return text if hidden == content else yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True)


@lru_cache(maxsize=4096)  # a page asks for every environment variable at each of its thousands of texts
def is_secret(name: str) -> bool:
    """Whether a config key or an environment variable has a name that suggests a secret."""
    return NAME.fullmatch(name) is not None


def known_secrets() -> list[str]:
    """The values of environment variables with names that suggest a secret, the longest first.

    An existing path is none: PWD is the current directory, and CREDENTIALS often names the file that has them.
    """
    found = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST}
    found = {value for value in found if not (value.startswith("/") and os.access(value, os.F_OK))}
    return sorted(found, key=len, reverse=True)
