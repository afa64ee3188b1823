"""What a GPU was doing while something was measured."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bench.rows import Figure, Goal
from service.gpus import GpuReading, keep_library_open, read_gpus

SAMPLE_S = 0.1
# What the driver tells is of the last moment: the first readings are of what was before.
SETTLED_S = 2.0
UTILIZATION_GOAL = 0.95
FLAT_BYTES = 16 * 2**20


@dataclass
class Watch:
    """Readings of the first GPU over a while, each with its time in seconds; none without one."""

    readings: list[tuple[float, GpuReading]] = field(default_factory=list)

    def figures(self) -> dict[str, Figure]:
        """Utilisation on average, and how much more memory was used at the end than soon after the beginning."""
        if not self.readings:
            return {}
        begun = self.readings[0][0]
        settled = [reading for at, reading in self.readings if at >= begun + SETTLED_S]
        busy = [reading.utilization for reading in settled if reading.utilization is not None]
        used = [reading.memory_used_bytes for reading in settled if reading.memory_used_bytes is not None]
        power = [reading.power_watts for reading in settled if reading.power_watts is not None]
        figures = {"gpu_utilization": float(np.mean(busy))} if busy else {}
        if used:
            figures["device_memory_growth_bytes"] = float(used[-1] - used[len(used) // 4])
        if power:
            figures["power_w"] = float(np.mean(power))
        return {name: Figure((value,)) for name, value in figures.items()}


def list_goals(figures: dict[str, Figure]) -> list[Goal]:
    """What a loaded GPU is held to, of what could be read."""
    goals = {
        "gpu_utilization": Goal("gpu_utilization", at_least=UTILIZATION_GOAL),
        "device_memory_growth_bytes": Goal("device_memory_growth_bytes", at_most=FLAT_BYTES),
    }
    return [goal for name, goal in goals.items() if name in figures]


@contextmanager
def watching(read: Callable[[], Sequence[GpuReading]] = read_gpus) -> Iterator[Watch]:
    """Take readings of the first GPU meanwhile."""
    watch, stop = Watch(), threading.Event()
    keep_library_open()

    def sample() -> None:
        while not stop.wait(SAMPLE_S):
            watch.readings += [(time.monotonic(), reading) for reading in read()[:1]]

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
