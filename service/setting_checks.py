"""What a setting's value may be: conversions from text and TOML by type, and checks that say what was expected."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIX_PREFIX = "unix:"
MAX_UNIX_PATH_BYTES = 107
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def about(help_text: str, check: Callable[[Any], str] | None = None, *, kind: str = "") -> dict[str, Any]:
    """What a row of the table of settings says beside name, type and default: meaning, check, and a word for help."""
    return {"help": help_text, "check": check, "kind": kind}


def between(low: float, high: float) -> Callable[[float], str]:
    """Check that a number lies between two bounds, both included."""
    return lambda value: "" if low <= value <= high else f"a number from {low} to {high}"


def one_of(*choices: str) -> Callable[[str], str]:
    """Check that a text is one of a few."""
    return lambda value: "" if value in choices else f"one of {', '.join(choices)}"


def listening_address(value: str) -> str:
    """Check that a text is a host, or names a Unix socket whose path the kernel takes."""
    if value.startswith(UNIX_PREFIX):
        size = len(os.fsencode(value.removeprefix(UNIX_PREFIX)))
        return "" if 0 < size <= MAX_UNIX_PATH_BYTES else f"unix: and a path of at most {MAX_UNIX_PATH_BYTES} bytes"
    return "" if value.strip() else "a text that is not empty"


def existing_directory(path: Path) -> str:
    """Check that a folder is there and can be listed."""
    return "" if path.is_dir() and os.access(path, os.R_OK | os.X_OK) else "a folder that exists and can be read"


def readable_file(path: Path) -> str:
    """Check that a file is there and can be read."""
    return "" if path.is_file() and os.access(path, os.R_OK) else "a file that exists and can be read"


def writable_place(path: Path) -> str:
    """Check that a file can be made there."""
    is_writable = path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK) and not path.is_dir()
    return "" if is_writable else "a file in a folder that exists and can be written to"


def uris(values: tuple[str, ...]) -> str:
    """Check that every text is an absolute URI."""
    return "" if all(URI.fullmatch(value) for value in values) else "URIs such as spiffe://example.org/gateway"


def some_of(*choices: str) -> Callable[[tuple[str, ...]], str]:
    """Check that every text is one of a few."""
    return lambda values: "" if set(values) <= set(choices) else f"some of {', '.join(choices)}"


def _to_text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError
    return given


def _to_whole_number(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise TypeError
    return int(given)


def _to_number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise TypeError
    return float(given)


def _to_truth(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if _to_text(given).lower() not in TRUTHS:
        raise ValueError
    return TRUTHS[given.lower()]


def _to_path(given: object) -> Path:
    if isinstance(given, Path):
        return given
    if not _to_text(given):
        raise ValueError
    return Path(given)


def _to_texts(given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return tuple(_to_text(part) for part in given)


# By the type of a setting: how a value is read, and what one was expected to be when it cannot.
CONVERTERS: dict[object, tuple[Callable[[object], object], str]] = {
    str: (_to_text, "a text"),
    int: (_to_whole_number, "a whole number"),
    int | None: (_to_whole_number, "a whole number"),
    float: (_to_number, "a number"),
    bool: (_to_truth, "true or false"),
    Path: (_to_path, "a path"),
    Path | None: (_to_path, "a path"),
    tuple[str, ...]: (_to_texts, "a list of texts"),
}
