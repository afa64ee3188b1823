"""A small model: what a call costs where the transport is nearly all of it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Figure, Goal, Row
from bench.servers import TRANSPORT, Server
from bench.transport.comparison import compare_servers, run_trio

LOADS = ((1, 1), (4, 8), (8, 32))
# One call at a time, above the floor, which neither decodes, nor batches, nor computes: both are woken for each call.
GOAL_ADDED_US = 15.0
GOALS = {
    (1, 1): [Goal("added_cpu_us_per_request", at_most=GOAL_ADDED_US), Goal("added_latency_us", at_most=GOAL_ADDED_US)],
    (4, 8): [Goal("cpu_us_per_request", at_most=5.0)],
    (8, 32): [
        Goal("cpu_us_per_request", at_most=4.0),
        Goal("requests_per_s", at_least=200_000.0),
        Goal("echo_cpu_ratio", at_most=1 / 40),
    ],
}


def measure(effort: Effort) -> list[Row]:
    """A row a load."""
    message = encode_tiny()
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny(folder / "models")
        with run_trio(folder / "models", folder) as servers:
            return [measure_load(effort, servers, message, *load) for load in LOADS]


def measure_load(effort: Effort, servers: Sequence[Server], message: bytes, connections: int, streams: int) -> Row:
    """The row of one load; `added_…` is what ours takes above the floor."""
    figures = compare_servers(effort, servers, message, connections=connections, streams=streams)
    for added, name in (("added_cpu_us_per_request", "cpu_us_per_request"), ("added_latency_us", "mean_latency_us")):
        pairs = zip(figures[name].repeats, figures[f"floor_{name}"].repeats, strict=True)
        figures[added] = Figure(tuple(ours - floor for ours, floor in pairs))
    conditions = {
        "transport": TRANSPORT,
        "model": "tiny",
        "message_bytes": len(message),
        "load": f"{connections}×{streams}",
    }
    return Row("transport_tiny", figures, conditions, GOALS[connections, streams])
