"""One loaded model and a thousand: start, memory, threads, and what a call to one of them costs."""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import TINY_MODEL, encode_tiny, save_tiny
from bench.processes import count_threads, read_resident_bytes
from bench.rows import Figure, Goal, Row, collect_figures
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, run_sluice
from bench.transport.comparison import compare_servers
from tests import onnx_models

LOAD = {"connections": 8, "streams": 32}
# Whatever is looked up by a model's name is looked up at once.
GOAL_COST_RATIO = 1.5


def measure(effort: Effort) -> list[Row]:
    """One row; `one_…` are the figures of the server with one model."""
    count = effort.pick(1_000, 10)
    with TemporaryDirectory() as name:
        folder = Path(name)
        one, many = folder / "one", folder / "many"
        save_tiny(one)
        save_tiny(many)
        for number in range(1, count):
            onnx_models.save(onnx_models.tiny(seed=number), many, f"{TINY_MODEL}_{number}")
        figures = compare_starts(effort, folder, one, many, count) | compare_costs(effort, folder, one, many)
    goals = [Goal("one_cpu_ratio", at_most=GOAL_COST_RATIO), Goal("added_threads", at_most=0)]
    return [Row("transport_repositories", figures, {"transport": TRANSPORT, "models": count}, goals)]


def compare_starts(effort: Effort, folder: Path, one: Path, many: Path, count: int) -> dict[str, Figure]:
    """What stands after the start, and how long it took."""
    few, lots = effort.interleave(*(partial(start, repository, folder) for repository in (one, many)))
    figures = {**collect_figures(lots), **{f"one_{name}": figure for name, figure in collect_figures(few).items()}}
    pairs = list(zip(lots, few, strict=True))
    figures["kib_per_model"] = Figure(
        tuple((ours["resident_mib"] - theirs["resident_mib"]) * 1024 / (count - 1) for ours, theirs in pairs)
    )
    figures["start_ms_per_model"] = Figure(
        tuple((ours["start_s"] - theirs["start_s"]) * 1000 / (count - 1) for ours, theirs in pairs)
    )
    figures["added_threads"] = Figure(tuple(ours["threads"] - theirs["threads"] for ours, theirs in pairs))
    return figures


def start(repository: Path, folder: Path) -> dict[str, float]:
    """One start, from the command to the line that says that the server is ready."""
    began = time.monotonic()
    with run_sluice(repository, folder, options=TRANSPORT_OPTIONS) as server:
        return {
            "start_s": time.monotonic() - began,
            "resident_mib": read_resident_bytes(server.pid) / 2**20,
            "threads": count_threads(server.pid),
        }


def compare_costs(effort: Effort, folder: Path, one: Path, many: Path) -> dict[str, Figure]:
    """Calls to the same model, alone and among the others."""
    with (
        run_sluice(many, folder, options=TRANSPORT_OPTIONS) as ours,
        run_sluice(one, folder, name="one", options=TRANSPORT_OPTIONS) as alone,
    ):
        return compare_servers(effort, (ours, alone), encode_tiny(), **LOAD)
