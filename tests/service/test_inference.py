"""Inference on grpcio's asyncio server: what a stream may have under way, and what becomes of it at the end."""

import threading
import time

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request

from kernels.engine import Engine
from kernels.session import Session
from service.inference import MAX_STREAM_REQUESTS, InferenceHandler
from service.metadata import SERVICE_NAME
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.aio_server import running_server

WAIT_S = 60
# A millisecond's work or two.
SLOW_ITERATIONS = 20_000


@pytest.fixture
def engine(tmp_path):
    """An engine with a model that takes its time over each request."""
    engine = Engine(workers=1)
    path = onnx_models.save(onnx_models.slow(SLOW_ITERATIONS), tmp_path, "slow", 1)
    engine.load("slow", 1, Session(path), max_batch_size=0)
    yield engine
    engine.close()


@pytest.fixture
def stub(engine):
    """A client of a server that has only the handler under test."""
    made = []

    async def close():
        made[0].close()

    def register(server):
        made.append(InferenceHandler(engine))
        server.add_registered_method_handlers(SERVICE_NAME, made[0].methods())

    with running_server(register) as running, grpc.insecure_channel(running.address) as channel:
        yield GRPCInferenceServiceStub(channel)
        running.call(close())


class Pouring:
    """Requests without end, and how many of them were taken."""

    def __init__(self):
        self.taken = 0
        self._finished = threading.Event()
        self._request = build_request("slow", {"input": np.ones((1, 4), np.float32)})

    def __iter__(self):
        while not self._finished.is_set():
            self.taken += 1
            yield self._request

    def finish(self):
        """Give no more."""
        self._finished.set()


def wait_until(condition):
    """Return as soon as something holds."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_stream_has_a_bounded_number_of_requests_under_way(engine, stub):
    """However fast its client sends."""
    requests = Pouring()
    call = stub.ModelStreamInfer(iter(requests), timeout=WAIT_S)
    most = 0
    for _ in range(MAX_STREAM_REQUESTS * 4):
        next(call)
        most = max(most, engine.statistics("slow", 1)["queued"])
    requests.finish()
    call.cancel()
    # Beside those whose replies wait in order: the one that is awaited, and the one that waits for a place.
    assert MAX_STREAM_REQUESTS / 2 < most <= MAX_STREAM_REQUESTS + 2


def test_stream_that_is_cancelled_leaves_nothing_in_the_engine(engine, stub):
    """What waited is withdrawn, what ran is dropped."""
    requests = Pouring()
    call = stub.ModelStreamInfer(iter(requests), timeout=WAIT_S)
    wait_until(lambda: engine.statistics("slow", 1)["queued"] > MAX_STREAM_REQUESTS / 2)
    requests.finish()
    call.cancel()
    wait_until(lambda: engine.statistics("slow", 1)["queued"] == 0)
    assert engine.drain(WAIT_S)
    assert engine.statistics("slow", 1)["cancelled"] > MAX_STREAM_REQUESTS / 4
