"""Several servers under the same load in turn: the figures of each, and what ours costs beside the others."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.effort import Effort
from bench.loadgen import Calls
from bench.rows import Figure, collect_figures, compare
from bench.servers import TRANSPORT_OPTIONS, Server, prepare_load, run_echo, run_floor, run_sluice

DURATION_S, QUICK_DURATION_S = 1.0, 0.05
PERCENTILES = ("p50", "p99", "p999")


@contextmanager
def run_trio(repository: Path, folder: Path) -> Iterator[list[Server]]:
    """Ours, grpcio's echo and the floor, in plain text."""
    with ExitStack() as stack:
        servers = (run_sluice(repository, folder, options=TRANSPORT_OPTIONS), run_echo(folder), run_floor(folder))
        yield [stack.enter_context(server) for server in servers]


def compare_servers(
    effort: Effort, servers: Sequence[Server], message: bytes, *, percentiles: Sequence[str] = (), **load: Any
) -> dict[str, Figure]:
    """Figures of the first server, those of the others after their names, and the ratios of the first to each.

    Parameters
    ----------
    percentiles
        Of the latency, beside its mean.
    load
        For `Server.measure_calls`; a second of calls unless it says otherwise.
    """
    load = {"duration_s": effort.pick(DURATION_S, QUICK_DURATION_S), **load}
    with TemporaryDirectory() as folder:
        prepared = [prepare_load(server, message, Path(folder)) for server in servers]
        measures = [
            partial(measure_server, server, *files, percentiles, load)
            for server, files in zip(servers, prepared, strict=True)
        ]
        ours, *others = map(collect_figures, effort.interleave(*measures))
    figures = dict(ours)
    for server, theirs in zip(servers[1:], others, strict=True):
        figures |= {f"{server.name}_{name}": figure for name, figure in theirs.items()}
        figures |= {
            f"{server.name}_{ratio}": compare(ours[name].repeats, theirs[name].repeats)
            for ratio, name in (("cpu_ratio", "cpu_us_per_request"), ("latency_ratio", "mean_latency_us"))
        }
    return figures


def measure_server(
    server: Server, frame: Path, reply_bytes: int, percentiles: Sequence[str], load: dict[str, Any]
) -> dict[str, float]:
    """One repeat of one server."""
    cpu_us, calls = server.measure_calls(frame, reply_bytes, **load)
    return {
        "cpu_us_per_request": cpu_us,
        "requests_per_s": calls.requests / calls.seconds,
        "mean_latency_us": calls.latency_us["mean"],
        **{f"{name}_latency_us": calls.latency_us[name] for name in percentiles},
        **(describe_rate(calls) if "rate" in load else {}),
    }


def describe_rate(calls: Calls) -> dict[str, float]:
    """Whether the generator kept the rate, and whether the server took what it was sent."""
    return {"p99_lateness_us": calls.lateness_us["p99"], "failed_share": calls.failed / calls.requests}
