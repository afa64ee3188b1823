"""What a connection without calls keeps of the server's memory, in plain text and over mTLS."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.certificates import Certificates
from bench.effort import Effort
from bench.h2load import write_frame
from bench.loadgen import keep_idle, run_calls
from bench.models import encode_tiny, save_tiny
from bench.processes import raise_file_limit, read_resident_bytes
from bench.rows import Goal, Row, collect_figures
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, run_echo, run_floor, run_sluice

WARM_UP_CALLS = 2_000
GOAL_KIB, GOAL_MTLS_KIB = 16, 64


def measure(effort: Effort) -> list[Row]:
    """A row for each security; every repeat has a server of its own, whose allocator has nothing left over."""
    raise_file_limit()
    count = effort.pick(2_000, 20)
    with TemporaryDirectory() as name:
        folder = Path(name)
        certificates = Certificates.make(folder / "certs")
        repository = save_tiny(folder / "models").parents[2]
        frame = write_frame(folder / "frame", encode_tiny())
        ours = partial(run_sluice, repository, folder, options=TRANSPORT_OPTIONS)
        plain = {"": ours, "echo_": partial(run_echo, folder), "floor_": partial(run_floor, folder)}
        mtls = {
            "": partial(ours, certificates=certificates),
            "echo_": partial(run_echo, folder, certificates=certificates),
        }
        return [
            measure_security(effort, kind, sides, frame, count, goal_kib)
            for kind, sides, goal_kib in (("plain text", plain, GOAL_KIB), ("mtls", mtls, GOAL_MTLS_KIB))
        ]


def measure_security(
    effort: Effort,
    kind: str,
    sides: dict[str, Callable[[], AbstractContextManager[Server]]],
    frame: Path,
    count: int,
    goal_kib: float,
) -> Row:
    """The row of one security."""
    results = effort.interleave(*(partial(measure_server, run, frame, count) for run in sides.values()))
    figures = {
        f"{prefix}{name}": figure
        for prefix, repeats in zip(sides, results, strict=True)
        for name, figure in collect_figures(repeats).items()
    }
    conditions = {"transport": TRANSPORT, "security": kind, "connections": count}
    return Row("transport_idle", figures, conditions, [Goal("kib_per_connection", at_most=goal_kib)])


def measure_server(run: Callable[[], AbstractContextManager[Server]], frame: Path, count: int) -> dict[str, float]:
    """One repeat: what the resident size grows by, after calls that have filled the server's pools."""
    with run() as server:
        run_calls(server.port, frame, connections=8, streams=8, requests=WARM_UP_CALLS, credentials=server.credentials)
        before = read_resident_bytes(server.pid)
        with keep_idle(server.port, connections=count, credentials=server.credentials):
            grown = read_resident_bytes(server.pid) - before
    return {"kib_per_connection": grown / count / 1024}
