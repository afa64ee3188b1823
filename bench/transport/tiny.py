"""A small model: what a call costs where the transport is nearly all of it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Goal, Row
from bench.servers import TRANSPORT, Server
from bench.transport.comparison import compare_servers, run_trio

LOADS = ((1, 1), (4, 8), (8, 32))
# Beside grpcio's echo, which computes nothing; beside the floor, which neither decodes, nor batches, nor computes.
GOAL_ECHO_RATIO = 0.1
GOAL_FLOOR_RATIO = 3.0


def measure(effort: Effort) -> list[Row]:
    """A row a load."""
    message = encode_tiny()
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny(folder / "models")
        with run_trio(folder / "models", folder) as servers:
            return [measure_load(effort, servers, message, *load) for load in LOADS]


def measure_load(effort: Effort, servers: Sequence[Server], message: bytes, connections: int, streams: int) -> Row:
    """The row of one load; one call at a time is held to no ratio of CPU time, which is that of being woken."""
    figures = compare_servers(effort, servers, message, connections=connections, streams=streams)
    is_single = connections * streams == 1
    goals = [Goal("echo_cpu_ratio", at_most=GOAL_ECHO_RATIO), Goal("floor_cpu_ratio", at_most=GOAL_FLOOR_RATIO)]
    conditions = {
        "transport": TRANSPORT,
        "model": "tiny",
        "message_bytes": len(message),
        "load": f"{connections}×{streams}",
    }
    return Row("transport_tiny", figures, conditions, [] if is_single else goals)
