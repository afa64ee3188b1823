"""The engine alone: CPU time from a message's bytes to its reply's, ONNX Runtime included; its statistics alone."""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.engine_loop import EngineLoop
from bench.models import encode_tiny, save_tiny
from bench.rows import Goal, Row, collect_figures
from kernels.counting_loop import count_batches

MAX_BATCH_SIZE = 32
# Eight batches: what is settled while the driver sleeps leaves the queue full.
WINDOW = 256
GOAL_US = 1.2
PHASES = ("gather", "run", "encode")
COUNTED_ROWS = (1, 8, 32)
STATISTICS_GOAL_US = 0.1


def measure(effort: Effort) -> list[Row]:
    """A row of the small model, in natural batches of up to 32, on one core; then one of statistics for each size."""
    return [measure_requests(effort), *measure_statistics(effort)]


def measure_requests(effort: Effort) -> Row:
    """The small model in natural batches."""
    requests = effort.pick(1_000_000, 20_000)
    message = encode_tiny()
    with (
        TemporaryDirectory() as folder,
        EngineLoop(save_tiny(Path(folder)), [message], max_batch_size=MAX_BATCH_SIZE) as loop,
    ):
        [repeats] = effort.interleave(lambda: describe_run(loop.drive(requests, WINDOW), requests))
    conditions = {"model": "tiny", "message_bytes": len(message), "max_batch_size": MAX_BATCH_SIZE, "window": WINDOW}
    goals = [Goal("cpu_us_per_request", at_most=GOAL_US)]
    return Row("engine", collect_figures(repeats), {**conditions, "requests": requests}, goals)


def measure_statistics(effort: Effort) -> list[Row]:
    """What counting costs each request of a batch; the clock is read for each phase of a batch."""
    requests = effort.pick(4_000_000, 40_000)
    figures = effort.interleave(*(functools.partial(time_counting, rows, requests // rows) for rows in COUNTED_ROWS))
    goals = [Goal("cpu_us_per_request", at_most=STATISTICS_GOAL_US)]
    return [
        Row("engine_statistics", collect_figures(repeats), {"batch_size": rows, "requests": requests}, goals)
        for rows, repeats in zip(COUNTED_ROWS, figures, strict=True)
    ]


def time_counting(rows: int, batches: int) -> dict[str, float]:
    """Figures of counting so many batches."""
    return {"cpu_us_per_request": count_batches(rows, batches) / (rows * batches) / 1000}


def describe_run(result: dict[str, float], requests: int) -> dict[str, float]:
    """Figures of one run of an engine loop."""
    return {
        "cpu_us_per_request": result["cpu_ns"] / requests / 1000,
        "requests_per_s": requests / result["elapsed_ns"] * 1e9,
        "batch_size": result["rows"] / result["executions"],
        **{f"{phase}_us_per_request": result[f"{phase}_ns"] / requests / 1000 for phase in PHASES},
    }
