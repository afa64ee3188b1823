"""A chain of three models as an ensemble, beside the same three called one after the other.

In process, without a transport, where the three together are what the ensemble adds its own work to; and through the
server, where each of them is a call of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.ensemble_loop import EnsembleLoop
from bench.models import encode_rows
from bench.rows import Figure, Goal, Row, collect_figures, compare
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, prepare_load, run_sluice
from bench.transport.comparison import DURATION_S, QUICK_DURATION_S, measure_server
from tests import onnx_models
from tests.ensemble_folders import describe_chain, save_ensemble

CHAIN = "chain"
PARTS = ("first", "second", "third")
MAX_BATCH_SIZE = 32
WINDOW = 256
COLUMNS, LARGE_COLUMNS = 16, 150_000
LOADS = ((1, 1), (4, 8))


def measure(effort: Effort) -> list[Row]:
    """Rows of small and of large tensors in process, and of each load through the server."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        for seed, part in enumerate(PARTS):
            onnx_models.save(onnx_models.tiny(seed=seed, outputs=COLUMNS), small, part, config="max_batch_size: 32")
            onnx_models.save(onnx_models.identity(shape=("batch", LARGE_COLUMNS)), large, part)
        config = describe_chain(*PARTS, max_batch_size=MAX_BATCH_SIZE, columns=COLUMNS)
        save_ensemble(small, CHAIN, config)
        return [
            measure_engine(effort, "ensemble", small, COLUMNS, requests=effort.pick(200_000, 2_000), window=WINDOW),
            measure_engine(effort, "ensemble_tensors", large, LARGE_COLUMNS, requests=effort.pick(2_000, 20), window=1),
            *measure_server_loads(effort, small, folder),
        ]


def measure_engine(effort: Effort, name: str, models: Path, columns: int, *, requests: int, window: int) -> Row:
    """CPU time a request in the engine alone: of the ensemble, and of its parts in all."""
    messages = {model: encode_rows(model, (1, columns)) for model in (*PARTS, CHAIN)}
    with EnsembleLoop(models, messages, PARTS, columns=columns, max_batch_size=MAX_BATCH_SIZE) as loop:
        chain, parts = effort.interleave(
            *(lambda names=names: sum_runs(loop, names, requests, window) for names in ([CHAIN], PARTS))
        )
    conditions = {"models": len(PARTS), "tensor_bytes": 4 * columns, "window": window, "requests": requests}
    return Row(name, put_together(chain, parts), conditions)


def sum_runs(loop: EnsembleLoop, names: Sequence[str], requests: int, window: int) -> dict[str, float]:
    """Figures of models that are run one after the other, in all."""
    cpu_ns = sum(loop.drive(name, requests, window) for name in names)
    return {"cpu_us_per_request": cpu_ns / requests / 1000}


def measure_server_loads(effort: Effort, models: Path, folder: Path) -> list[Row]:
    """A row a load, of one server."""
    with run_sluice(models, folder, options=TRANSPORT_OPTIONS) as server:
        return [measure_load(effort, server, folder, *load) for load in LOADS]


def measure_load(effort: Effort, server: Server, folder: Path, connections: int, streams: int) -> Row:
    """One call of the ensemble beside the three calls that a client would make, each after the one before."""
    load = {"duration_s": effort.pick(DURATION_S, QUICK_DURATION_S), "connections": connections, "streams": streams}
    measures = {}
    for model in (CHAIN, *PARTS):
        frame, reply_bytes = prepare_load(server, encode_rows(model, (1, COLUMNS)), folder)
        kept = frame.rename(folder / f"{model}.frame")
        measures[model] = partial(measure_server, server, kept, reply_bytes, (), load)
    calls = [measures[part] for part in PARTS]
    chain, parts = effort.interleave(measures[CHAIN], lambda: sum_calls(calls))
    pairs = [{name: one[name] for name in parts[0]} for one in chain]
    figures = put_together(pairs, parts)
    conditions = {"transport": TRANSPORT, "models": len(PARTS), "load": f"{connections}×{streams}"}
    # What it is there for: it costs less than what it takes the place of.
    return Row("ensemble_transport", figures, conditions, [Goal("cpu_ratio", at_most=1.0)])


def sum_calls(calls: Sequence[Callable[[], dict[str, float]]]) -> dict[str, float]:
    """CPU time and latency of calls one after the other: a client waits for each before it can make the next."""
    found = [call() for call in calls]
    return {name: sum(one[name] for one in found) for name in ("cpu_us_per_request", "mean_latency_us")}


def put_together(chain: Sequence[dict[str, float]], parts: Sequence[dict[str, float]]) -> dict[str, Figure]:
    """The ensemble's figures, its parts', and the ratios of the one to the other."""
    ours, theirs = collect_figures(chain), collect_figures(parts)
    figures = ours | {f"parts_{name}": figure for name, figure in theirs.items()}
    ratios = {"cpu_us_per_request": "cpu_ratio", "mean_latency_us": "latency_ratio"}
    return figures | {ratios[name]: compare(ours[name].repeats, theirs[name].repeats) for name in ours}
