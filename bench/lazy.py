"""Lazy loading: what the first request for a model takes, what models that are in memory pay for it, and the resident
size of a server that passes hundreds of models through a budget for a few.
"""

import json
import random
import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from bench.effort import Effort
from bench.h2load import INFER_PATH
from bench.models import SEED, TINY_MODEL, encode_rows, encode_tiny, save_tiny
from bench.processes import HOST, BenchError, read_resident_bytes
from bench.rows import Figure, Row, collect_figures
from bench.servers import TRANSPORT_OPTIONS, Server, prepare_load, run_sluice
from tests import onnx_models

COLUMNS = 16
# A hidden layer of 8,192: weights of 640 KiB.
HIDDEN = 8192
# What one takes once it has run: its weights as the file has them and as ONNX Runtime packs them, and its first arena.
MODEL_BYTES = 2_300_000
LAZY = ("--lazy-loading",)
CONNECTIONS, STREAMS = 4, 8
CALL_TIMEOUT_S = 60.0


def measure(effort: Effort) -> list[Row]:
    """Three rows: first requests, models in memory, and the churn."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        models = save_models(folder / "models", effort.pick(200, 12))
        return [
            measure_first(effort, folder, models),
            measure_steady(effort, folder),
            measure_churn(effort, folder, models),
        ]


def save_models(repository: Path, count: int) -> list[str]:
    """So many perceptrons of 640 KiB with weights of their own; their names."""
    names = [f"model{number:04}" for number in range(count)]
    for number, name in enumerate(names):
        onnx_models.save(onnx_models.tiny(hidden=HIDDEN, seed=number), repository, name)
    return names


@contextmanager
def calling(server: Server) -> Iterator[grpc.UnaryUnaryMultiCallable]:
    """ModelInfer over a connection that stands: messages in, messages out."""
    with grpc.insecure_channel(f"{HOST}:{server.port}") as channel:
        grpc.channel_ready_future(channel).result(CALL_TIMEOUT_S)
        yield channel.unary_unary(INFER_PATH)


def measure_first(effort: Effort, folder: Path, models: Sequence[str]) -> Row:
    """How long the first call of a model takes, and the second: one after another, of one caller."""
    repeats = []
    for _ in range(effort.repeats):
        options = [*TRANSPORT_OPTIONS, *LAZY]
        with run_sluice(folder / "models", folder, options=options) as server, calling(server) as call:
            first, second = [], []
            for name in models:
                message = encode_rows(name, (1, COLUMNS))
                first.append(time_call(call, message))
                second.append(time_call(call, message))
            repeats.append({**name_percentiles("first", first), **name_percentiles("second", second)})
    conditions = {"models": len(models), "weights_kib": HIDDEN * (COLUMNS + 1 + 4) * 4 // 1024}
    return Row("lazy_first", collect_figures(repeats), conditions)


def time_call(call: grpc.UnaryUnaryMultiCallable, message: bytes) -> float:
    """How long one call takes, in microseconds."""
    begun = time.perf_counter()
    call(message, timeout=CALL_TIMEOUT_S)
    return (time.perf_counter() - begun) * 1e6


def name_percentiles(prefix: str, values_us: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, under the names of figures."""
    ordered = sorted(values_us)
    return {
        f"{prefix}_p50_us": ordered[len(ordered) // 2],
        f"{prefix}_p99_us": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }


def measure_steady(effort: Effort, folder: Path) -> Row:
    """CPU time a request of a model that is in memory, on servers with and without lazy loading in turns."""
    save_tiny(folder / "steady")
    duration_s = effort.pick(5.0, 0.3)
    budget = f"--memory-budget-bytes={2**30}"
    with (
        run_sluice(folder / "steady", folder, name="eager", options=TRANSPORT_OPTIONS) as eager,
        run_sluice(folder / "steady", folder, name="lazy", options=[*TRANSPORT_OPTIONS, *LAZY, budget]) as lazy,
    ):

        def load(server: Server) -> float:
            frame, reply_bytes = prepare_load(server, encode_tiny(), folder)
            cpu_us, _ = server.measure_calls(
                frame, reply_bytes, connections=CONNECTIONS, streams=STREAMS, duration_s=duration_s
            )
            return cpu_us

        without, with_it = effort.interleave(lambda: load(eager), lambda: load(lazy))
    added = tuple(one - other for one, other in zip(with_it, without, strict=True))
    figures = {
        "eager_cpu_us_per_request": Figure(tuple(without)),
        "cpu_us_per_request": Figure(tuple(with_it)),
        "added_cpu_us_per_request": Figure(added),
    }
    return Row("lazy_steady", figures, {"model": TINY_MODEL, "connections": CONNECTIONS, "streams": STREAMS})


def measure_churn(effort: Effort, folder: Path, models: Sequence[str]) -> Row:
    """Calls of models at random with room for a tenth of them: resident size, loads, and how long calls take."""
    rounds, calls = effort.pick(20, 2), effort.pick(200, 10)
    generator = random.Random(SEED)
    budget_bytes = max(len(models) // 10, 1) * MODEL_BYTES
    options = [*TRANSPORT_OPTIONS, *LAZY, f"--memory-budget-bytes={budget_bytes}", "--metrics-port=0"]
    with run_sluice(folder / "models", folder, name="churn", options=options) as server, calling(server) as call:
        sizes, taken = [read_resident_bytes(server.pid)], []
        for _ in range(rounds):
            names = generator.choices(models, k=calls)
            taken += [time_call(call, encode_rows(name, (1, COLUMNS))) for name in names]
            sizes.append(read_resident_bytes(server.pid))
        counts = read_metrics(folder / "churn.log")
    figures = {
        "start_resident_mib": Figure((sizes[0] / 2**20,)),
        "resident_mib": Figure(tuple(size / 2**20 for size in sizes[1:])),
        "model_memory_mib": Figure((counts["sluice_model_memory_bytes"] / 2**20,)),
        "budget_mib": Figure((budget_bytes / 2**20,)),
        **{name: Figure((value,)) for name, value in name_percentiles("call", taken).items()},
        "loads_per_call": Figure((counts["sluice_lazy_loads_total"] / len(taken),)),
    }
    notes = {name: int(value) for name, value in counts.items()}
    return Row("lazy_churn", figures, {"models": len(models), "calls": len(taken)}, notes=notes)


def read_metrics(log: Path) -> dict[str, float]:
    """What the server tells of lazy loading, at the address that its log names."""
    entries = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    address = next(entry["metrics"] for entry in entries if entry.get("event") == "ready")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=CALL_TIMEOUT_S) as answer:
        found = re.findall(r"^(sluice_(?:model|lazy|evict)\w+) (\S+)$", answer.read().decode(), re.MULTILINE)
    if not found:
        raise BenchError("the server tells nothing of lazy loading")
    return {name: float(value) for name, value in found}
