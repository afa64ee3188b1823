"""Asks the control plane of a state folder: lines of JSON on a socket of its owner's."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = "run/control.sock"
SHOW, APPLY = "show", "apply"


class ControlError(Exception):
    """The control plane cannot be started or asked; the text says why."""


def ask(state_folder: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What it answers, line by line; ControlError when there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            with shorten_path(state_folder / SOCKET) as address:
                connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as lines:
                yield from map(json.loads, lines)
    except OSError as error:
        raise ControlError(f"no control plane answers for {state_folder}: {error.strerror}") from None


@contextmanager
def shorten_path(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes, which is what a socket's may have, by its folder's descriptor."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
