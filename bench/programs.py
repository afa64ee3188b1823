"""The C programs of bench/native, compiled into build/bench when they are missing or older than their sources."""

import os
import subprocess
from pathlib import Path

from bench.origin import ROOT
from bench.processes import BenchError

SOURCES = Path(__file__).parent / "native"
BUILD = ROOT / "build" / "bench"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O3", "-Wall", "-Wextra")
# Of each program: its sources, and the libraries that it is linked with.
PROGRAMS = {
    "floor": (("floor", "echo"), ("nghttp2",)),
    "loadgen": (
        ("loadgen", "options", "load", "handshakes", "connection", "session", "wire", "tls", "histogram"),
        ("nghttp2", "ssl", "crypto", "m"),
    ),
}
HEADERS = {"nghttp2/nghttp2.h": "libnghttp2-dev", "openssl/ssl.h": "libssl-dev"}


def compile_program(name: str) -> Path:
    """The program's file, up to date.

    Raises
    ------
    BenchError
        There is no C compiler, or a header is missing, or the compiler refuses; the text says what to install.
    """
    names, libraries = PROGRAMS[name]
    sources = [SOURCES / f"{source}.c" for source in names]
    program = BUILD / name
    newest = max(path.stat().st_mtime for path in (*sources, *SOURCES.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    made = program.with_name(f".{name}.{os.getpid()}")
    _compile([*FLAGS, *map(str, sources), "-o", str(made), *(f"-l{library}" for library in libraries)])
    # In one step: several measurements may be compiling at once.
    made.rename(program)
    return program


def _compile(arguments: list[str]) -> None:
    compiler = os.environ.get("CC", "cc")
    try:
        done = subprocess.run([*compiler.split(), *arguments], capture_output=True, text=True)
    except OSError:
        raise BenchError(f"no C compiler ({compiler}); on Debian: apt-get install gcc libc6-dev") from None
    for header, package in HEADERS.items():
        if f"{header}: No such file" in done.stderr:
            raise BenchError(f"the header {header} was not found; on Debian: apt-get install {package}")
    if done.returncode != 0:
        raise BenchError(f"{compiler} refused:\n{done.stderr}")
