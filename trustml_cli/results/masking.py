"""What looks like a secret, replaced before it reaches a file or page that is handed on."""

import os
import re
from typing import Any

import yaml

MASK = "***"
SHORTEST = 6  # characters of an environment variable that are looked for in a text; `1` would be found everywhere
WORDS = r"(?:token|password|passwd|pwd|secret|api_?key|access_?key|private_?key|credentials?)"
NAME = re.compile(rf"(?:.*[._\W])?{WORDS}", re.IGNORECASE | re.DOTALL)
PLAIN = r"(?!(?:null|true|false|[-+]?[\d.]+)(?:[\s,}\]]|$))"  # what no secret is
ONE = rf"{PLAIN}(?:\[[^\]]*\]|\"[^\"]*\"|'[^']*'|[^\s&,}}\]\"']+)"
SAID = re.compile(rf"((?<![a-z]){WORDS}=|[{{,]\s*[\"']?[\w.-]*{WORDS}[\"']?:\s*){ONE}", re.IGNORECASE)
LINE = re.compile(rf"^([ \t]*[\"']?[\w.-]*{WORDS}[\"']?:[ \t]+){PLAIN}.+$", re.IGNORECASE | re.MULTILINE)
ADDRESS = re.compile(r"((?<![\w+.-])[\w+.-]+://)[^/\s@\"']+@")  # from the first letter only, or it takes n² steps
QUERY = re.compile(rf"([?&][\w-]*(?:{WORDS}|key|sig|signature)=)[^&\s\"']+", re.IGNORECASE)


def masked(value: Any, key: str = "") -> Any:
    """`value` of plain Python, with *** for texts that look like secrets, at any depth.

    These are texts under a key that is called so (token, password, secret, api_key …), what a text itself calls so
    (`token=…`), user and password in an address, and the values of environment variables that are called so.
    """
    if isinstance(value, dict):
        return {name: masked(one, key if is_secret(key) else str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if value and is_secret(key):
        return MASK
    for secret in known_secrets():
        value = value.replace(secret, MASK)
    value = QUERY.sub(rf"\1{MASK}", ADDRESS.sub(rf"\1{MASK}@", value))
    value = SAID.sub(rf"\1{MASK}", value)
    return LINE.sub(rf"\1{MASK}", value) if "\n" in value else value  # else it is a message about such a key


def masked_yaml(text: str) -> str:
    """A YAML text with its values masked; as it is where there is nothing to mask."""
    content = yaml.safe_load(text)
    hidden = masked(content)
    return text if hidden == content else yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True)


def is_secret(name: str) -> bool:
    """Whether a key of a config, or an environment variable, is called like a secret."""
    return NAME.fullmatch(name) is not None


def known_secrets() -> list[str]:
    """The values of environment variables that are called like secrets, the longest first."""
    found = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)
