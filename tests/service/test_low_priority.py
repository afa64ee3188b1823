"""Work of low priority: on threads of its own, whose priority nobody else gets."""

import os
import threading

import pytest

from service.low_priority import NICENESS, LowPriorityThreads

MAX_NICENESS = 19


def read_niceness():
    """Of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_run_gives_what_the_function_gives_at_low_priority():
    """The caller's own thread stays as it is."""
    own = read_niceness()
    threads = LowPriorityThreads(2, "low")
    assert threads.run(read_niceness) == min(own + NICENESS, MAX_NICENESS)
    assert threads.run(divmod, 7, 2) == (3, 1)
    assert read_niceness() == own
    with pytest.raises(ZeroDivisionError):
        threads.run(divmod, 1, 0)
