"""Connections made and closed again over mTLS: how many a second, and what each costs."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.certificates import Certificates
from bench.effort import Effort
from bench.loadgen import run_handshakes
from bench.models import save_tiny
from bench.processes import BenchError, read_tree_cpu_ns
from bench.rows import Goal, Row, collect_figures, compare
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, run_echo, run_sluice

CONNECTIONS = 8
# Nearly all of it is arithmetic, which is another library's on either side: OpenSSL's, and BoringSSL's in grpcio.
GOAL_ECHO_RATIO = 1.25


def measure(effort: Effort) -> list[Row]:
    """A row with new sessions, one with those of earlier connections taken up."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        certificates = Certificates.make(folder / "certs")
        repository = save_tiny(folder / "models").parents[2]
        sides = (
            run_sluice(repository, folder, certificates=certificates, options=TRANSPORT_OPTIONS),
            run_echo(folder, certificates=certificates),
        )
        servers = [stack.enter_context(side) for side in sides]
        return [measure_kind(effort, servers, is_resuming) for is_resuming in (False, True)]


def measure_kind(effort: Effort, servers: Sequence[Server], is_resuming: bool) -> Row:
    """The row of one kind of handshake."""
    count = effort.pick(1_000, 16)
    results = effort.interleave(*(partial(measure_server, server, count, is_resuming) for server in servers))
    ours, echo = map(collect_figures, results)
    figures = {
        **ours,
        **{f"echo_{name}": figure for name, figure in echo.items()},
        "echo_cpu_ratio": compare(ours["cpu_us_per_handshake"].repeats, echo["cpu_us_per_handshake"].repeats),
    }
    conditions = {"transport": TRANSPORT, "resuming": is_resuming, "at_a_time": CONNECTIONS, "handshakes": count}
    return Row("transport_handshakes", figures, conditions, [Goal("echo_cpu_ratio", at_most=GOAL_ECHO_RATIO)])


def measure_server(server: Server, count: int, is_resuming: bool) -> dict[str, float]:
    """One repeat of one server; a server that takes up no session shows it in `resumed_share`."""
    before_ns = read_tree_cpu_ns(server.pid)
    found = run_handshakes(
        server.port,
        handshakes=count,
        connections=CONNECTIONS,
        credentials=server.credentials,
        is_resuming=is_resuming,
    )
    if found.failed:
        raise BenchError(f"{server.name}: {found.failed} of {count} handshakes failed")
    return {
        "cpu_us_per_handshake": (read_tree_cpu_ns(server.pid) - before_ns) / count / 1000,
        "handshakes_per_s": count / found.seconds,
        "p50_latency_us": found.latency_us["p50"],
        "p99_latency_us": found.latency_us["p99"],
        "resumed_share": found.resumed / count,
    }
