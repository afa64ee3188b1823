"""How exactly times are kept: a queue's delay and deadlines in it, each beside a bare timerfd of the same time."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.delays_loop import DelaysLoop
from bench.effort import Effort
from bench.rows import Figure, Goal, Row
from tests import onnx_models

DELAYS_US = (200, 1000, 5000)
DEADLINE_US = 5000
# Long beside everything else, so that it shows where it is waited for.
SKIPPED_DELAY_US = 20_000
GOAL_DELAY_US = 10.0
GOAL_EXPIRY_US = 1000.0
BUSY_ITERATIONS = 20_000


def measure(effort: Effort) -> list[Row]:
    """Rows of the delay, of expiries while every worker is busy, and of requests that nobody is beside."""
    with TemporaryDirectory() as folder:
        models = {
            "tiny": str(onnx_models.save(onnx_models.tiny(), Path(folder), "tiny")),
            "busy": str(onnx_models.save(onnx_models.slow(BUSY_ITERATIONS), Path(folder), "busy")),
        }
        with DelaysLoop(models, delays_us=DELAYS_US, skipped_us=SKIPPED_DELAY_US) as loop:
            rows = [measure_delay(effort, loop, delay_us) for delay_us in DELAYS_US]
            return [*rows, measure_alone(effort, loop), measure_expiry(effort, loop)]


def measure_delay(effort: Effort, loop: DelaysLoop, delay_us: int) -> Row:
    """From the end of the delay of a request that waits alone until its batch left the queue."""
    times = effort.pick(400, 5)
    [repeats] = effort.interleave(lambda: loop.sample("delay", delay_us, times))
    figures = describe_pairs(repeats)
    goals = [Goal("added_us", at_most=GOAL_DELAY_US)]
    return Row("delays_queue", figures, {"delay_us": delay_us, "times": times}, goals)


def measure_expiry(effort: Effort, loop: DelaysLoop) -> Row:
    """From a deadline in the queue of a model that has every worker it may have, until the request was settled."""
    times = effort.pick(300, 5)
    [repeats] = effort.interleave(lambda: loop.sample("expiry", DEADLINE_US, times))
    figures = describe_pairs(repeats)
    goals = [Goal("added_p99_us", at_most=GOAL_EXPIRY_US)]
    return Row("delays_expiry", figures, {"deadline_us": DEADLINE_US, "times": times}, goals)


def measure_alone(effort: Effort, loop: DelaysLoop) -> Row:
    """What a request waits with a delay that is skipped when nobody is beside it, and without any delay."""
    times = effort.pick(400, 5)
    [repeats] = effort.interleave(lambda: loop.sample("alone", SKIPPED_DELAY_US, times))
    waits, bare_waits = ([statistics.median(repeat[name]) / 1000 for repeat in repeats] for name in ("late", "bare"))
    figures = {"queue_us": Figure(tuple(waits)), "undelayed_queue_us": Figure(tuple(bare_waits))}
    return Row("delays_alone", figures, {"delay_us": SKIPPED_DELAY_US, "times": times})


def describe_pairs(repeats: Sequence[dict[str, list[int]]]) -> dict[str, Figure]:
    """Medians and 99th percentiles of ours and of the timerfd's, and what ours adds, in microseconds."""
    figures = {}
    for name, find in (("", statistics.median), ("p99_", find_p99)):
        late, bare = ([find(repeat[whose]) / 1000 for repeat in repeats] for whose in ("late", "bare"))
        figures[f"{name}late_us"] = Figure(tuple(late))
        figures[f"timerfd_{name}late_us"] = Figure(tuple(bare))
        figures[f"added_{name}us"] = Figure(tuple(ours - theirs for ours, theirs in zip(late, bare, strict=True)))
    return figures


def find_p99(values: Sequence[int]) -> float:
    """The 99th percentile, and the largest of fewer than a hundred."""
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]
