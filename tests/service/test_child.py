"""A child runs with its log in a file and ends within a bounded time, or with who started it."""

import os
import select
import signal
import subprocess
import sys

import pytest

from service.child import Child

TIMEOUT_S = 30.0
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


@pytest.fixture
def start(tmp_path):
    """Start Python on a program as a child; whatever still runs at the end is killed."""
    children = []

    def start(program):
        children.append(Child("it", [sys.executable, "-c", program], tmp_path, tmp_path / "it.log"))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.close()


def wait_for_end(child):
    """Return when the child's descriptor says that it has ended."""
    assert select.select([child.descriptor], [], [], TIMEOUT_S)[0]


def test_large_log_is_put_aside_at_the_next_start(start, tmp_path, monkeypatch):
    """Logs of many starts do not fill the disk: one older file is kept."""
    monkeypatch.setattr("service.child.LOG_BYTES", 10)
    (tmp_path / "it.log").write_text("more than ten bytes")
    child = start("print('new', flush=True)")
    wait_for_end(child)
    assert (tmp_path / "it.log").read_text() == "new\n"
    assert (tmp_path / "it.log.1").read_text() == "more than ten bytes"


def test_child_that_ends_tells_its_status_and_its_last_words(start):
    """Both streams are in the log, and the descriptor says when it is over."""
    child = start("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)")
    wait_for_end(child)
    assert child.exit_code() == 3
    assert child.read_log_tail() == "out\nerr"
    assert child.close() == 3


def test_child_started_again_tells_only_its_own_words(start, tmp_path):
    """The log goes on in the same file; what another said before is not shown as its own."""
    wait_for_end(start("print('first')"))
    second = start("print('second')")
    wait_for_end(second)
    assert second.read_log_tail() == "second"
    assert (tmp_path / "it.log").read_text() == "first\nsecond\n"


def test_stop_of_a_child_that_does_not_listen_kills_it(start, tmp_path):
    """Nobody refuses to end."""
    child = start(STUBBORN)
    while child.read_log_tail() != "up":
        assert child.exit_code() is None
    assert child.stop(0.1) == -signal.SIGKILL


def test_child_whose_starter_is_killed_is_told_to_end(tmp_path):
    """The kernel tells it, since the starter cannot."""
    program = "import sys, pathlib; from service.child import Child\n"
    program += "here = pathlib.Path(sys.argv[1])\n"
    program += "child = Child('it', ['/bin/sh', '-c', 'echo up; exec sleep 600'], here, here / 'log')\n"
    program += "while child.read_log_tail() != 'up': pass\n"
    program += "print(child.pid, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        try:
            descriptor = os.pidfd_open(int(starter.stdout.readline()))
        finally:
            starter.kill()
    assert select.select([descriptor], [], [], TIMEOUT_S)[0]
    os.close(descriptor)


def test_child_of_a_program_that_is_not_there_says_so(tmp_path):
    """The launcher's own words are in the log."""
    child = Child("it", ["/nowhere/program"], tmp_path, tmp_path / "log")
    wait_for_end(child)
    assert "No such file" in child.read_log_tail()
    assert child.close() != 0
