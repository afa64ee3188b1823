"""Threads to which the system gives what others leave: for work that takes long and must not delay requests."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# A tenth of the weight of an ordinary thread, so that the work is done even while those have enough to do.
NICENESS = 10


class LowPriorityThreads:
    """Runs functions, each while its caller waits.

    Not for what starts threads that outlive it: they would inherit the priority, and no thread gets it back. Nor for
    what holds Python's lock for long, which would keep threads of ordinary priority waiting.
    """

    def __init__(self, threads: int, name: str):
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=lower_priority)

    def run(self, function: Callable[..., T], *arguments: object, **options: object) -> T:
        """What the function returns or raises."""
        return self._threads.submit(function, *arguments, **options).result()


def lower_priority() -> None:
    """Lower the priority of this thread, for good."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
