"""Threads for servicers: so many, so many calls that wait for one, and no more."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class BoundedPool:
    """A pool of threads that refuses what it would have to queue without bound.

    Parameters
    ----------
    threads
        Calls that run at the same time; threads start on demand.
    max_queued
        Calls that wait for a thread.
    name
        Prefix of the threads' names.
    """

    def __init__(self, threads: int, max_queued: int, name: str):
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.Semaphore(threads + max_queued)

    def submit(self, function: Callable[..., None], *arguments: object) -> bool:
        """Run a function that raises nothing; False when there is no place for it."""
        if not self._places.acquire(blocking=False):
            return False
        self._threads.submit(self._run, function, arguments)
        return True

    def _run(self, function: Callable[..., None], arguments: tuple) -> None:
        try:
            function(*arguments)
        finally:
            self._places.release()

    def close(self) -> None:
        """Drop what waits and let what runs end in its own time; nothing is submitted afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)
