"""Tells whether doing something over and over takes ever more memory: C's by AddressSanitizer's count, and Python's."""

import ctypes
import gc
import sys
from collections.abc import Callable

from fuzz.finding import Finding

WARM_UP_RUNS = 6
# Rounds and the runs of each: a quick look, then a long one at what seemed to grow.
LOOKS = ((4, 8), (12, 100))


def find_leak(run: Callable[[], None]) -> None:
    """Raise Finding when every round leaves more behind than the last: a byte or an object at least for each run.

    Pools and caches grow in some rounds, not in all. Bytes are counted only under AddressSanitizer, which must not be
    asked to serve Python's own objects too: of these some are always on their way.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    found = ""
    for rounds, runs in LOOKS:
        found = look(run, rounds, runs)
        if not found:
            return
    raise Finding(found)


def look(run: Callable[[], None], rounds: int, runs: int) -> str:
    """What has grown in each of so many rounds; empty, and at once, when nothing has."""
    growths: list[tuple[int, int]] = []
    for _ in range(rounds):
        growths.append(measure_growth(run, runs))
        if max(map(min, zip(*growths, strict=True))) < runs:
            return ""
    return f"leak: {runs} runs leave more bytes and objects allocated each time: {growths}"


def measure_growth(run: Callable[[], None], runs: int) -> tuple[int, int]:
    """Bytes of C's and objects of Python's that one round leaves behind."""
    before = count_allocated()
    for _ in range(runs):
        run()
    after = count_allocated()
    return after[0] - before[0], after[1] - before[1]


def count_allocated() -> tuple[int, int]:
    """Bytes of C's and objects of Python's that are in use."""
    gc.collect()
    counter = getattr(ctypes.CDLL(None), "__sanitizer_get_current_allocated_bytes", None)
    if counter is None:
        return 0, sys.getallocatedblocks()
    counter.restype = ctypes.c_size_t
    return counter(), sys.getallocatedblocks()
