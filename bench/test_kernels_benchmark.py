"""pytest-benchmark for the kernels, from Python: for following one of them over time and for finding what slowed down.

Run by `make bench`; each goes through the kernel's own Python face, which costs more than the engine pays.
"""

import numpy as np
import pytest

from bench.models import encode_rows, encode_tiny, save_tiny
from kernels import messages, reference
from kernels.closed_loop import drive_engine
from kernels.engine import Engine
from kernels.session import Session
from service.client import read_response
from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from tests import onnx_models

LARGE_COLUMNS = 150_000
TURNS = 1000


@pytest.fixture
def engine(tmp_path):
    """An engine with the small perceptron and a model that returns its input."""
    made = Engine()
    made.load("tiny", 1, Session(save_tiny(tmp_path)), max_batch_size=32)
    same = onnx_models.save(onnx_models.identity(shape=("batch", "columns")), tmp_path, "same")
    made.load("same", 1, Session(same), max_batch_size=32)
    yield made
    made.close()


@pytest.mark.parametrize("message", [encode_tiny(), encode_rows("same", (1, LARGE_COLUMNS))], ids=["small", "600 KB"])
def test_decode_request(benchmark, message):
    """A message as plain Python values."""
    decoded = benchmark(messages.decode_request, message)
    assert decoded.inputs[0].name == "input"


def test_decode_request_by_protobuf(benchmark):
    """The same small message by protobuf."""
    request = benchmark(ModelInferRequest.FromString, encode_tiny())
    assert request.inputs[0].name == "input"


@pytest.mark.parametrize("elements", [4, LARGE_COLUMNS])
def test_encode_response(benchmark, elements):
    """A reply with one output."""
    outputs = [("output", "FP32", (1, elements), bytes(4 * elements))]
    reply = benchmark(lambda: messages.encode_response(model_name="tiny", model_version="1", id="", outputs=outputs))
    assert len(ModelInferResponse.FromString(reply).raw_output_contents[0]) == 4 * elements


def test_codec_without_python(benchmark):
    """A thousand turns of decoding a small request and encoding a reply."""
    assert benchmark(messages.measure_codec, encode_tiny(), TURNS) > 0


def test_infer_one_request(benchmark, engine):
    """One blocking call: its wake-ups are most of it."""
    reply = benchmark(engine.infer, encode_tiny())
    assert read_response(ModelInferResponse.FromString(reply)).outputs["output"].shape == (1, 4)


@pytest.mark.parametrize("window", [1, 32, 256])
def test_engine_in_a_closed_loop(benchmark, engine, window):
    """A thousand requests, so many at a time."""
    assert benchmark(drive_engine, engine, [encode_tiny()], TURNS, window).failed == 0


def test_engine_with_a_large_tensor(benchmark, engine):
    """A tensor of 600 KB, there and back."""
    message = encode_rows("same", (1, LARGE_COLUMNS))
    assert benchmark(drive_engine, engine, [message], 10, 1).failed == 0


def test_gather_rows_by_numpy(benchmark):
    """What the engine's gather is measured against: thirty-two small rows by NumPy."""
    rows = [np.ones((1, 16), np.float32)] * 32
    assert benchmark(reference.gather_rows, rows).shape == (32, 16)
