"""What loading one model does to the callers of another: latencies at a rate, with nothing else and while a large model
is loaded anew again and again, both on the server's one core.
"""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from bench.effort import Effort
from bench.models import TINY_MODEL, encode_tiny, save_tiny
from bench.processes import HOST
from bench.rows import Figure, Goal, Row, collect_figures
from bench.servers import TRANSPORT_OPTIONS, Server, prepare_load, run_sluice
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests import onnx_models

LARGE_MODEL = "large"
CHANNELS, LAYERS = 512, 8
RATE = 2000.0
CONNECTIONS, STREAMS = 4, 32
LOAD_TIMEOUT_S = 120.0
CONTROL = ("--model-control-mode=explicit", f"--load-model={TINY_MODEL}")
# Stated in docs/models.md.
BOUND_US = 5000.0
PERCENTILES = ("p50", "p99", "p999")


class Loader:
    """Loads the large model again and again, each time as another one, for as long as it is asked to."""

    def __init__(self, port: int):
        self._channel = grpc.insecure_channel(f"{HOST}:{port}")
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._sizes = itertools.cycle((1, 2))
        self.seconds: list[float] = []

    def load(self) -> None:
        """Load it once; noted is how long that took."""
        request = pb.RepositoryModelLoadRequest(model_name=LARGE_MODEL)
        request.parameters["config"].string_param = f'{{"max_batch_size": {next(self._sizes)}}}'
        begun = time.monotonic()
        self._stub.RepositoryModelLoad(request, timeout=LOAD_TIMEOUT_S)
        self.seconds.append(time.monotonic() - begun)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Load without pause while the block runs; ends with the load that is under way."""
        is_over = threading.Event()

        def load_on() -> None:
            while not is_over.is_set():
                self.load()

        thread = threading.Thread(target=load_on)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def measure(effort: Effort) -> list[Row]:
    """One row: latencies of the small model in both cases, and what the loads add at the 99th percentile."""
    duration_s = effort.pick(5.0, 0.5)
    with TemporaryDirectory() as name:
        folder = Path(name)
        large_bytes = save_models(folder / "models").stat().st_size
        with run_sluice(folder / "models", folder, options=[*TRANSPORT_OPTIONS, *CONTROL]) as server:
            frame, reply_bytes = prepare_load(server, encode_tiny(), folder)
            loader = Loader(server.port)
            loader.load()
            loader.load()
            processor = [measure_load_cpu(server, loader) for _ in range(effort.repeats)]
            loader.seconds.clear()

            def measure_alone() -> dict[str, float]:
                return measure_latencies(server, frame, reply_bytes, duration_s)

            def measure_beside() -> dict[str, float]:
                with loader.loading():
                    return measure_latencies(server, frame, reply_bytes, duration_s)

            alone, beside = effort.interleave(measure_alone, measure_beside)
    figures = {
        f"{prefix}{name}_latency_us": Figure(tuple(one[name] for one in found))
        for prefix, found in (("alone_", alone), ("", beside))
        for name in PERCENTILES
    }
    added = tuple(one["p99"] - other["p99"] for one, other in zip(beside, alone, strict=True))
    figures |= {"added_p99_us": Figure(added), "load_s": Figure(tuple(loader.seconds)), **collect_figures(processor)}
    conditions = {
        "model": TINY_MODEL,
        "requests_per_s": RATE,
        "large_mib": round(large_bytes / 2**20),
        "loads": len(loader.seconds),
    }
    return [Row("loading", figures, conditions, [Goal("added_p99_us", at_most=BOUND_US)])]


def measure_load_cpu(server: Server, loader: Loader) -> dict[str, float]:
    """Processor time of one load by the priority of the threads that take it, which a busy machine hardly changes."""
    before = read_thread_cpu_ms(server.pid)
    loader.load()
    spent = {thread: ms - before.get(thread, 0.0) for thread, ms in read_thread_cpu_ms(server.pid).items()}
    ordinary = os.getpriority(os.PRIO_PROCESS, server.pid)
    low = {thread for thread in spent if os.getpriority(os.PRIO_PROCESS, thread) > ordinary}
    return {
        "ordinary_cpu_ms_per_load": sum(ms for thread, ms in spent.items() if thread not in low),
        "low_priority_cpu_ms_per_load": sum(spent[thread] for thread in low),
    }


def read_thread_cpu_ms(pid: int) -> dict[int, float]:
    """Processor time of each thread of a process so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(thread.name): int((thread / "schedstat").read_text().split()[0]) / 1e6 for thread in threads}


def save_models(repository: Path) -> Path:
    """The small perceptron and a large convolutional model; returns the file of the latter."""
    save_tiny(repository)
    return onnx_models.save(onnx_models.convolution(channels=CHANNELS, layers=LAYERS), repository, LARGE_MODEL)


def measure_latencies(server: Server, frame: Path, reply_bytes: int, duration_s: float) -> dict[str, float]:
    """Percentiles of the latency of calls that come at a fixed rate, each from when it was due."""
    _, calls = server.measure_calls(
        frame, reply_bytes, connections=CONNECTIONS, streams=STREAMS, duration_s=duration_s, rate=RATE
    )
    return dict(calls.latency_us)
