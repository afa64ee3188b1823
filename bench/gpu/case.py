"""One model on a device: bare in each way, through the engine, for a long while, and served."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from bench.effort import Effort
from bench.gpu.loop import BIND, MODEL, RECORD, RUN, DeviceLoop
from bench.gpu.served import measure_servers
from bench.gpu.watch import list_goals, watching
from bench.processes import BenchError
from bench.rows import Figure, Goal, Row, compare
from service.client import build_request
from service.gpus import driver_version, list_gpus
from service.model_sessions import list_usable_gpus
from tests import onnx_models

BATCHES = (8, 16, 32, 64, 128)
BUFFER_SETS = 3
# What one repeat of one way takes, and each batch size of the search for the best, in seconds.
REPEAT_S, SEARCH_S = 1.0, 0.5
ENGINE_GOAL = 0.97
# So many batches must leave the device's memory as it was; no more than fit into the time are run, and the row says how
# many those were.
FLAT_BATCHES, FLAT_S = 100_000, 45.0


@dataclass(frozen=True)
class Case:
    """A model, a row of its input, and what the server is to reach of the bare loop."""

    name: str
    model: onnx.ModelProto
    row: np.ndarray
    server_goal: float


@dataclass(frozen=True)
class Bench:
    """What the measurements of a case share.

    Attributes
    ----------
    batch_s
        What the bare session takes for a batch of `batch` rows.
    """

    loop: DeviceLoop
    effort: Effort
    batch: int
    batch_s: float

    def count_runs(self, seconds: float) -> int:
        """Batches that take about so long; few when only the code is to be shown to run."""
        return self.effort.pick(max(ceil(seconds / self.batch_s), 10), 3)

    def run_bare(self, way: str) -> float:
        """Rows a second of one repeat."""
        return self.loop.run_bare(way, self.batch, self.count_runs(REPEAT_S))

    def run_engine(self, way: str, batches: int | None = None) -> dict[str, float]:
        """What the engine says of one repeat, or of so many batches."""
        requests = self.batch * (batches or self.count_runs(REPEAT_S))
        return self.loop.run_engine(way, self.batch, requests, (BUFFER_SETS + 2) * self.batch, BUFFER_SETS)


def measure_case(case: Case, effort: Effort) -> list[Row]:
    """The rows of one model: bare, the engine without and with recorded runs, a long while, and the server."""
    gpus = list_usable_gpus()
    if not gpus and not effort.is_quick:
        raise BenchError(
            "no GPU that ONNX Runtime can use: `sluice doctor` says what is missing; --quick runs on the CPU"
        )
    device = f"cuda:{gpus[0]}" if gpus else "cpu:staged:0"
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = onnx_models.save(case.model, folder, MODEL)
        message = build_request(MODEL, {"input": case.row}).SerializeToString()
        conditions = {"model": case.name, **describe_device(device), "message_bytes": len(message)}
        with DeviceLoop(path, device, message) as loop:
            rows, bench = measure_loop(loop, conditions, effort)
        goals = Goal("ratio_to_bare", at_least=case.server_goal)
        rows += measure_servers(folder, message, {**rows[0].conditions}, bench.batch_s, goals, effort)
    return rows


def describe_device(device: str) -> dict[str, str]:
    """Where it was measured, for the rows' conditions."""
    gpu = next((gpu for gpu in list_gpus() if device == f"cuda:{gpu.number}"), None)
    return {"device": device, "gpu": gpu.name, "driver": driver_version()} if gpu else {"device": device}


def measure_loop(loop: DeviceLoop, conditions: dict[str, Any], effort: Effort) -> tuple[list[Row], Bench]:
    """The rows without a server; the first has the bare session's figures at its best batch, which all others use."""
    speeds = {batch: search(loop, batch, effort) for batch in effort.pick(BATCHES, BATCHES[:2])}
    batch = max(speeds, key=speeds.__getitem__)
    bench = Bench(loop, effort, batch, batch / speeds[batch])
    conditions = {**conditions, "max_batch_size": batch, "buffer_sets": BUFFER_SETS}
    bare = measure_bare(bench, speeds, conditions)
    bench = replace(bench, batch_s=batch / bare.figures[f"{RUN}_rows_per_s"].median)
    rows = [bare, measure_engine(bench, RUN, conditions)]
    if f"{RECORD}_rows_per_s" in bare.figures:
        rows.append(measure_engine(bench, RECORD, conditions))
    return [*rows, measure_long(bench, conditions)], bench


def search(loop: DeviceLoop, batch: int, effort: Effort) -> float:
    """Rows a second at one batch size; what the first runs choose and allocate is not counted."""
    loop.run_bare(RUN, batch, 2)
    first = loop.run_bare(RUN, batch, 3)
    return loop.run_bare(RUN, batch, effort.pick(max(ceil(SEARCH_S * first / batch), 10), 3))


def measure_bare(bench: Bench, speeds: dict[int, float], conditions: dict[str, Any]) -> Row:
    """The session alone, in turn in each way that the device knows; `…_ratio` is to how the engine runs it."""
    problems = {}
    ways = [RUN, BIND, RECORD]
    for way in (BIND, RECORD):
        try:
            bench.loop.run_bare(way, bench.batch, 1)
        except BenchError as error:
            problems[way] = str(error)
            ways.remove(way)
    speed = dict(zip(ways, bench.effort.interleave(*(_bind(bench.run_bare, way) for way in ways)), strict=True))
    figures = {f"{way}_rows_per_s": Figure(tuple(found)) for way, found in speed.items()}
    figures |= {f"{way}_ratio": compare(found, speed[RUN]) for way, found in speed.items() if way != RUN}
    figures |= {f"rows_per_s_at_{size}": Figure((found,)) for size, found in speeds.items()}
    return Row("gpu_bare", figures, conditions, notes=problems)


def measure_engine(bench: Bench, way: str, conditions: dict[str, Any]) -> Row:
    """The engine beside the session alone, in turn."""
    bare, ours = bench.effort.interleave(lambda: bench.run_bare(way), lambda: bench.run_engine(way))
    reached = [result["rows"] / result["loop_ns"] * 1e9 for result in ours]
    figures = {
        "bare_rows_per_s": Figure(tuple(bare)),
        "engine_rows_per_s": Figure(tuple(reached)),
        "ratio": compare(reached, bare),
        "batch_size": Figure(tuple(result["rows"] / result["executions"] for result in ours)),
    }
    return Row("gpu_engine", figures, {**conditions, "way": way}, _on_gpu(conditions, ratio=ENGINE_GOAL))


def measure_long(bench: Bench, conditions: dict[str, Any]) -> Row:
    """The engine for many batches without a pause: whether the device is kept busy, and whether its memory grows."""
    batches = min(bench.count_runs(FLAT_S), FLAT_BATCHES)
    with watching() as watch:
        result = bench.run_engine(RUN, batches)
    seen = watch.figures()
    figures = {
        "batches": Figure((float(result["executions"]),)),
        "rows_per_s": Figure((result["rows"] / result["loop_ns"] * 1e9,)),
        **seen,
    }
    return Row("gpu_long", figures, conditions, list_goals(seen) if _is_gpu(conditions) else [])


def _bind(function: Any, way: str) -> Any:
    return lambda: function(way)


def _is_gpu(conditions: dict[str, Any]) -> bool:
    return conditions["device"].startswith("cuda")


def _on_gpu(conditions: dict[str, Any], **at_least: float) -> Sequence[Goal]:
    """Goals, which a GPU alone is held to."""
    return [Goal(name, at_least=bound) for name, bound in at_least.items()] if _is_gpu(conditions) else []
