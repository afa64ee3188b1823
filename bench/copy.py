"""A large tensor through the engine: what gathering and encoding it take, beside plain copies of the same size.

The model returns its input, so that a tensor goes message → batch → result → reply, each arrow one copy: the gather,
the model's own, the encoding. The floor is three memcpy in the same order over four buffers, which keeps the caches as
busy. A phase that copied twice would take twice the floor's time.
"""

import ctypes
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.engine_loop import EngineLoop
from bench.models import encode_rows
from bench.processes import SERVER_CORE, pinned
from bench.rows import Figure, Goal, Row, collect_figures, compare
from tests import onnx_models

ELEMENTS = 150_000
TENSOR_BYTES = 4 * ELEMENTS
BUFFERS = 4
ALIGNMENT = 64
# Noise of shared caches included; a second copy would make it 2.
GOAL_RATIO = 1.5


def measure(effort: Effort) -> list[Row]:
    """One row: both phases, the floor of each, and their ratios."""
    requests = effort.pick(3_000, 100)
    message = encode_rows("same", (1, ELEMENTS))
    with TemporaryDirectory() as folder, pinned(SERVER_CORE):
        path = onnx_models.save(onnx_models.identity(shape=("batch", ELEMENTS)), Path(folder), "same")
        with EngineLoop(path, [message], max_batch_size=1, name="same") as loop:
            ours, floor = effort.interleave(
                lambda: describe_run(loop.drive(requests, 1), requests), lambda: measure_memcpy(requests)
            )
    figures = collect_figures(ours)
    for phase, step in (("gather", 0), ("encode", 2)):
        copies = [result[step] for result in floor]
        figures[f"memcpy_{phase}_us"] = Figure(tuple(copies))
        figures[f"{phase}_to_memcpy_ratio"] = compare(figures[f"{phase}_us"].repeats, copies)
    goals = [Goal(f"{phase}_to_memcpy_ratio", at_most=GOAL_RATIO) for phase in ("gather", "encode")]
    return [Row("copy", figures, {"tensor_bytes": TENSOR_BYTES, "requests": requests}, goals)]


def describe_run(result: dict[str, float], requests: int) -> dict[str, float]:
    """Figures of one run of the engine loop."""
    gather_us = result["gather_ns"] / requests / 1000
    return {
        "gather_us": gather_us,
        "gather_gb_per_s": TENSOR_BYTES / gather_us / 1000,
        "encode_us": result["encode_ns"] / requests / 1000,
        "run_us": result["run_ns"] / requests / 1000,
        "cpu_us_per_request": result["cpu_ns"] / requests / 1000,
    }


def measure_memcpy(turns: int) -> list[float]:
    """Microseconds of each of the copies from one buffer to the next."""
    kept = [ctypes.create_string_buffer(TENSOR_BYTES + ALIGNMENT) for _ in range(BUFFERS)]
    buffers = [ctypes.addressof(buffer) + -ctypes.addressof(buffer) % ALIGNMENT for buffer in kept]
    steps = list(zip(range(BUFFERS - 1), buffers, buffers[1:], strict=False))
    took_ns = [0] * len(steps)
    for _ in range(turns):
        for step, source, target in steps:
            started = time.perf_counter_ns()
            ctypes.memmove(target, source, TENSOR_BYTES)
            took_ns[step] += time.perf_counter_ns() - started
    return [took / turns / 1000 for took in took_ns]
