"""The engine alone: CPU time from a message's bytes to its reply's bytes, ONNX Runtime included."""

from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.engine_loop import EngineLoop
from bench.models import encode_tiny, save_tiny
from bench.rows import Goal, Row, collect_figures

MAX_BATCH_SIZE = 32
# Eight batches: what is settled while the driver sleeps leaves the queue full.
WINDOW = 256
GOAL_US = 1.2
PHASES = ("gather", "run", "encode")


def measure(effort: Effort) -> list[Row]:
    """One row: the small model, in natural batches of up to 32, on one core."""
    requests = effort.pick(1_000_000, 20_000)
    message = encode_tiny()
    with (
        TemporaryDirectory() as folder,
        EngineLoop(save_tiny(Path(folder)), [message], max_batch_size=MAX_BATCH_SIZE) as loop,
    ):
        [repeats] = effort.interleave(lambda: describe_run(loop.drive(requests, WINDOW), requests))
    conditions = {"model": "tiny", "message_bytes": len(message), "max_batch_size": MAX_BATCH_SIZE, "window": WINDOW}
    goals = [Goal("cpu_us_per_request", at_most=GOAL_US)]
    return [Row("engine", collect_figures(repeats), {**conditions, "requests": requests}, goals)]


def describe_run(result: dict[str, float], requests: int) -> dict[str, float]:
    """Figures of one run of an engine loop."""
    return {
        "cpu_us_per_request": result["cpu_ns"] / requests / 1000,
        "requests_per_s": requests / result["elapsed_ns"] * 1e9,
        "batch_size": result["rows"] / result["executions"],
        **{f"{phase}_us_per_request": result[f"{phase}_ns"] / requests / 1000 for phase in PHASES},
    }
