"""`python -m fuzz.worker`: runs inputs through one target, in a process that may die of them."""

import argparse
import ctypes
import gc
import importlib
import os
import struct
import traceback
from pathlib import Path

from fuzz.finding import Finding
from fuzz.leak import find_leak

# An input's size, and whether it is looked over for leaks; then the input. Back: a size and a text.
REQUEST = struct.Struct("=I?")
REPLY = struct.Struct("=I")


def main() -> None:
    """Answer inputs until there are no more."""
    arguments = parse_arguments()
    target = load_target(arguments.target)
    gc.freeze()  # what is there stays: looking for leaks collects often
    if arguments.coverage:
        begin_coverage(arguments.coverage, arguments.map)
    with os.fdopen(arguments.requests, "rb") as requests, os.fdopen(arguments.replies, "wb", buffering=0) as replies:
        replies.write(REPLY.pack(0))
        while head := requests.read(REQUEST.size):
            size, is_leak_check = REQUEST.unpack(head)
            text = run_input(target, requests.read(size), is_leak_check).encode()
            replies.write(REPLY.pack(len(text)) + text)
    target.close()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", help="module:class")
    parser.add_argument("--requests", type=int, required=True, help="descriptor that inputs come from")
    parser.add_argument("--replies", type=int, required=True, help="descriptor that replies go to")
    parser.add_argument("--coverage", type=Path, help="the library made from coverage.c")
    parser.add_argument("--map", type=Path, help="file to count edges in")
    return parser.parse_args()


def load_target(name: str):
    """Make a target, by its module and class."""
    module, _, kind = name.partition(":")
    return getattr(importlib.import_module(module), kind)()


def begin_coverage(library: Path, path: Path) -> None:
    """Count edges in a file from now on."""
    if ctypes.CDLL(str(library)).coverage_begin(str(path).encode(), ctypes.c_uint32(path.stat().st_size)) != 0:
        raise OSError(f"{path} cannot be mapped")


def run_input(target, data: bytes, is_leak_check: bool) -> str:
    """What an input has shown; empty when all went well."""
    try:
        if is_leak_check:
            find_leak(lambda: target.run(data))
        else:
            target.run(data)
    except Finding as finding:
        return str(finding)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main()
