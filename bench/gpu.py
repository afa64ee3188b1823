"""A GPU under load: how much of what a bare session can do the engine and the whole server reach, and what is idle.

`python -m bench gpu` needs this repository and a GPU. Without one, or with `--quick`, the CPU stands in for it, with
models so small that only the code is shown to run.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from bench import gpu_models
from bench.effort import Effort
from bench.gpu_loop import MODEL, DeviceLoop
from bench.processes import CORES, BenchError, pin_threads
from bench.rows import Figure, Goal, Row, compare
from bench.servers import Server, prepare_load, run_sluice
from service.client import build_request
from service.gpus import GpuReading, read_gpus
from service.model_sessions import list_usable_gpus
from tests import onnx_models

BATCHES = (8, 16, 32, 64, 128)
BUFFER_SETS = 3
CONNECTIONS = 8
TRANSPORTS = ("native", "grpcio")
# Of what the closed load reached.
OPEN_LOAD = 0.8
SAMPLE_S = 0.1
ENGINE_GOAL, UTILIZATION_GOAL, LATENCY_GOAL = 0.97, 0.95, 2.0
FLAT_BATCHES, FLAT_BYTES = 100_000, 16 * 2**20


@dataclass(frozen=True)
class Case:
    """A model, a row of its input, and what the server is to reach of the bare loop."""

    name: str
    model: onnx.ModelProto
    row: np.ndarray
    server_goal: float


@dataclass
class Watch:
    """Readings of the first GPU over a while; none without one."""

    readings: list[GpuReading] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Utilisation on average, and how much more memory was used at the end than soon after the beginning."""
        if len(self.readings) < 2:
            return {}
        used = [reading.memory_used_bytes for reading in self.readings]
        return {
            "gpu_utilization": float(np.mean([reading.utilization for reading in self.readings[1:]])),
            "device_memory_growth_bytes": used[-1] - used[len(used) // 4],
        }


def measure(effort: Effort) -> list[Row]:
    """For each model a row of the bare loop and the engine, and one of the server on each transport."""
    gpus = list_usable_gpus()
    if not gpus and not effort.is_quick:
        raise BenchError(
            "no GPU that ONNX Runtime can use: `sluice doctor` says what is missing; --quick runs on the CPU"
        )
    rows = []
    for case in list_cases(effort):
        with TemporaryDirectory() as folder:
            rows += measure_case(case, f"cuda:{gpus[0]}" if gpus else "cpu:staged", Path(folder), effort)
    return rows


def list_cases(effort: Effort) -> list[Case]:
    """The models, or small ones of their kind."""
    picture = {} if not effort.is_quick else {"blocks": (1, 1, 1, 1), "width": 8, "size": 32}
    text = {} if not effort.is_quick else {"layers": 1, "hidden": 32, "heads": 2, "length": 16, "vocabulary": 100}
    size, length = picture.get("size", 224), text.get("length", 128)
    generator = np.random.default_rng(gpu_models.SEED)
    pixels = generator.integers(0, 256, (1, 3, size, size)).astype(np.uint8)
    words = generator.integers(0, text.get("vocabulary", 30522), (1, length)).astype(np.int32)
    return [
        Case("resnet50_fp16", gpu_models.resnet(np.float16, **picture), pixels, 0.85),
        Case("resnet50_fp32", gpu_models.resnet(np.float32, **picture), pixels, 0.85),
        Case("bert_base_fp16", gpu_models.encoder(np.float16, **text), words, 0.90),
    ]


def measure_case(case: Case, device: str, folder: Path, effort: Effort) -> list[Row]:
    """The rows of one model."""
    path = onnx_models.save(case.model, folder, MODEL)
    message = build_request(MODEL, {"input": case.row}).SerializeToString()
    conditions = {"model": case.name, "device": device, "message_bytes": len(message)}
    with DeviceLoop(path, device, message) as loop:
        figures, batch = measure_engine(loop, effort)
    speed = figures["bare_rows_per_s"].median
    engine = {**conditions, "max_batch_size": batch, "buffer_sets": BUFFER_SETS}
    is_gpu = device.startswith("cuda")
    made = [Row("gpu_engine", figures, engine, [Goal("ratio", at_least=ENGINE_GOAL)] if is_gpu else [])]
    write_config(folder, batch, device)
    for transport in TRANSPORTS:
        options = (f"--transport={transport}", "--inline=never")
        with run_sluice(folder, folder, name=f"sluice-{transport}", options=options) as server:
            pin_threads(server.pid, set(CORES))
            figures = measure_server(server, message, folder, batch, speed, effort)
        goals = list_goals(case, figures) if is_gpu and transport == "native" else []
        made.append(Row("gpu_server", figures, {**conditions, "transport": transport, "max_batch_size": batch}, goals))
    return made


def measure_engine(loop: DeviceLoop, effort: Effort) -> tuple[dict[str, Figure], int]:
    """Figures of the bare loop at its best batch and of the engine at the same, in turn; and that batch."""
    runs = effort.pick(200, 3)
    speeds = {batch: loop.run_bare(batch, runs) for batch in effort.pick(BATCHES, BATCHES[:2])}
    batch = max(speeds, key=speeds.__getitem__)
    watch = Watch()
    with watching(watch):
        bare, ours = effort.interleave(
            lambda: loop.run_bare(batch, runs),
            lambda: loop.run_engine(batch, runs * batch, (BUFFER_SETS + 2) * batch, BUFFER_SETS),
        )
    if any(result["unanswered"] for result in ours):
        raise BenchError("the engine left requests unanswered")
    reached = [result["rows"] / result["loop_ns"] * 1e9 for result in ours]
    figures = {
        "bare_rows_per_s": Figure(tuple(bare)),
        "engine_rows_per_s": Figure(tuple(reached)),
        "ratio": compare(reached, bare),
        "batch_size": Figure(tuple(result["rows"] / result["executions"] for result in ours)),
        **{f"bare_rows_per_s_at_{size}": Figure((speed,)) for size, speed in speeds.items()},
        **{name: Figure((value,)) for name, value in watch.figures().items()},
    }
    return figures, batch


def measure_server(
    server: Server, message: bytes, folder: Path, batch: int, bare: float, effort: Effort
) -> dict[str, Figure]:
    """What the server reaches under closed load, and its latencies at a part of that."""
    frame, reply_bytes = prepare_load(server, message, folder)
    streams = max((BUFFER_SETS + 2) * batch // CONNECTIONS, 1)
    duration_s = effort.pick(max(20.0, FLAT_BATCHES * batch / bare), 1.0)
    watch = Watch()
    with watching(watch):
        cpu_us, closed = server.measure_calls(
            frame,
            reply_bytes,
            connections=CONNECTIONS,
            streams=streams,
            duration_s=duration_s,
            time_limit_s=2 * duration_s + 60,
        )
    reached = closed.succeeded / closed.seconds
    _, open_ = server.measure_calls(
        frame,
        reply_bytes,
        connections=CONNECTIONS,
        streams=streams,
        rate=OPEN_LOAD * reached,
        duration_s=effort.pick(20.0, 1.0),
    )
    batch_us = batch / bare * 1e6
    figures = {
        "rows_per_s": reached,
        "ratio_to_bare": reached / bare,
        "cpu_us_per_request": cpu_us,
        "p50_us": open_.latency_us["p50"],
        "p99_us": open_.latency_us["p99"],
        "p99_per_batch_time": open_.latency_us["p99"] / batch_us,
        **watch.figures(),
    }
    return {name: Figure((float(value),)) for name, value in figures.items()}


def list_goals(case: Case, figures: dict[str, Figure]) -> list[Goal]:
    """What the native server is held to on a GPU; nvidia-ml-py gives the last two figures."""
    goals = [Goal("ratio_to_bare", at_least=case.server_goal), Goal("p99_per_batch_time", at_most=LATENCY_GOAL)]
    if "gpu_utilization" in figures:
        goals.append(Goal("gpu_utilization", at_least=UTILIZATION_GOAL))
        goals.append(Goal("device_memory_growth_bytes", at_most=FLAT_BYTES))
    return goals


def write_config(repository: Path, batch: int, device: str) -> None:
    """Have the server run the model where the loop ran it, in the same batches."""
    kind = "KIND_CPU" if device.startswith("cpu") else f"KIND_GPU gpus: [{device.removeprefix('cuda:')}]"
    sets = f'parameters {{ key: "buffer_sets" value {{ string_value: "{BUFFER_SETS}" }} }}'
    text = f"max_batch_size: {batch}\ninstance_group {{ kind: {kind} }}\n{sets}\n"
    (repository / MODEL / "config.pbtxt").write_text(text)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Take readings of the first GPU meanwhile."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_S):
            watch.readings += read_gpus()[:1]

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
