"""`sluice serve` over gRPC: CPU per request beside an echo of bytes on the same transport, under the same load."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.h2load import LOADS
from bench.models import encode_tiny, save_tiny
from bench.rows import Goal, Row, collect_figures, compare
from bench.servers import Server, prepare_load, run_echo, run_sluice

GOAL_RATIO = 1.35


def measure(effort: Effort) -> list[Row]:
    """One row a load."""
    message = encode_tiny()
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny(folder / "models")
        reference = run_sluice(folder / "models", folder, options=["--transport=grpcio"])
        with reference as sluice, run_echo(folder) as echo:
            return [measure_load(effort, sluice, echo, message, folder, *load) for load in LOADS]


def measure_load(
    effort: Effort, sluice: Server, echo: Server, message: bytes, folder: Path, clients: int, streams: int
) -> Row:
    """The row of one load."""
    requests = effort.pick(20_000, 500)
    measures = [
        partial(server.measure_load, *prepare_load(server, message, folder), clients, streams, requests)
        for server in (sluice, echo)
    ]
    ours, floor = map(collect_figures, effort.interleave(*measures))
    figures = {
        **ours,
        **{f"echo_{name}": figure for name, figure in floor.items()},
        "cpu_ratio": compare(ours["cpu_us_per_request"].repeats, floor["cpu_us_per_request"].repeats),
    }
    conditions = {"model": "tiny", "message_bytes": len(message), "load": f"{clients}×{streams}", "requests": requests}
    return Row("grpc", figures, conditions, [Goal("cpu_ratio", at_most=GOAL_RATIO)])
