"""bench.programs: C programs are compiled when they have to be, and what is missing is said."""

import os
import subprocess

import pytest

from bench import programs
from bench.processes import BenchError
from bench.programs import FLAGS, PROGRAMS, compile_program

pytestmark = pytest.mark.usefixtures("native_programs")


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Where the programs go meanwhile."""
    monkeypatch.setattr(programs, "BUILD", tmp_path / "build")
    return tmp_path / "build"


def test_program_is_compiled_when_missing_or_stale(build):
    """And left alone otherwise."""
    program = compile_program("floor")
    made = program.stat().st_mtime_ns
    assert compile_program("floor").stat().st_mtime_ns == made
    os.utime(program, (0, 0))
    assert compile_program("floor").stat().st_mtime_ns > made
    assert [path.name for path in build.iterdir()] == ["floor"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_compiles_without_a_warning(name, build, monkeypatch):
    """Of those that -Wall and -Wextra know."""
    monkeypatch.setattr(programs, "FLAGS", (*FLAGS, "-Werror"))
    assert compile_program(name).exists()


def test_compiler_that_is_missing_is_named(build, monkeypatch):
    """With the package that brings one."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BenchError, match=r"no-such-compiler.*apt-get install gcc"):
        compile_program("floor")


def test_header_that_is_missing_is_named(build, tmp_path, monkeypatch):
    """With the package that brings it."""
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'fatal error: nghttp2/nghttp2.h: No such file or directory' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(BenchError, match="apt-get install libnghttp2-dev"):
        compile_program("loadgen")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--requests=1"], "--address and --path"),
        (["--address=127.0.0.1:1", "--path=/x"], "a load has an end"),
        (["--address=localhost:1"], "IPv4 address"),
        (["--connections=0"], "number from 1"),
        (["--rate=-1"], "number above 0"),
        (["--message=/nowhere"], "cannot read /nowhere"),
        (["--speed=1"], "usage"),
    ],
)
def test_load_that_cannot_be_is_refused(options, message):
    """With what was expected."""
    done = subprocess.run([compile_program("loadgen"), *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
