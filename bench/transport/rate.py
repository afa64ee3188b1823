"""Latency at a rate that the callers keep, whatever the server does: shares of what it can do at most."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Figure, Goal, Row, compare
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, prepare_load, run_floor, run_sluice
from bench.transport.comparison import PERCENTILES, compare_servers

SHARES = (0.25, 0.5, 0.75)
CONNECTIONS = 8
CLOSED_STREAMS = 32
# So many that the rate is kept until a connection has this many calls outstanding.
OPEN_STREAMS = 512


def measure(effort: Effort) -> list[Row]:
    """A row a share of the capacity."""
    message = encode_tiny()
    with TemporaryDirectory() as name:
        folder = Path(name)
        repository = save_tiny(folder / "models").parents[2]
        with run_sluice(repository, folder, options=TRANSPORT_OPTIONS) as ours, run_floor(folder) as floor:
            return [
                measure_share(effort, (ours, floor), message, share, find_capacity(effort, ours, message, folder))
                for share in SHARES
            ]


def find_capacity(effort: Effort, server: Server, message: bytes, folder: Path) -> Figure:
    """Calls a second of a closed loop, right before the rate that is a share of it."""
    load = {"connections": CONNECTIONS, "streams": CLOSED_STREAMS, "duration_s": effort.pick(1.0, 0.05)}
    frame, reply_bytes = prepare_load(server, message, folder)
    [found] = effort.interleave(lambda: server.measure_calls(frame, reply_bytes, **load)[1])
    return Figure(tuple(calls.requests / calls.seconds for calls in found))


def measure_share(effort: Effort, servers: Sequence[Server], message: bytes, share: float, capacity: Figure) -> Row:
    """The row of one share, beside the floor at the same rate: what the machine itself does to latencies."""
    rate = share * capacity.median
    figures = compare_servers(
        effort,
        servers,
        message,
        percentiles=PERCENTILES,
        connections=CONNECTIONS,
        streams=OPEN_STREAMS,
        rate=rate,
        may_fail=True,
        duration_s=effort.pick(2.0, 0.1),
    )
    figures["capacity_per_s"] = capacity
    for name in PERCENTILES:
        figures[f"floor_{name}_ratio"] = compare(
            figures[f"{name}_latency_us"].repeats, figures[f"floor_{name}_latency_us"].repeats
        )
    conditions = {"transport": TRANSPORT, "model": "tiny", "share_of_capacity": share, "rate_per_s": round(rate)}
    return Row("transport_rate", figures, conditions, [Goal("failed_share", at_most=0)])
