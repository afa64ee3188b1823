"""kernels.timing: a reply that says how long its request waited and ran, for those that ask."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import build_request

from kernels import status
from service.pb import open_inference_pb2 as pb

NAMES = {f"server_timing.{name}" for name in ("queue_ns", "compute_input_ns", "compute_infer_ns", "batch_size")}


def ask(engine, model, inputs, **parameters):
    """The reply to a request with parameters, as a message."""
    request = build_request(model, inputs)
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(value)
    return pb.ModelInferResponse.FromString(engine.infer(request.SerializeToString()))


def read_timing(reply):
    """{name: value} of the reply's parameters."""
    return {name: value.int64_param for name, value in reply.parameters.items()}


YES, NO = pb.InferParameter(bool_param=True), pb.InferParameter(bool_param=False)


def test_reply_tells_its_times_only_when_asked(engine, load):
    """Without the parameter, and with false, there is none."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    rows = nonce_rows(1, 2)
    assert not ask(engine, "same", {"input": rows}).parameters
    assert not ask(engine, "same", {"input": rows}, server_timing=NO).parameters
    assert not ask(engine, "same", {"input": rows}, other=YES).parameters
    timing = read_timing(ask(engine, "same", {"input": rows}, server_timing=YES))
    assert timing.keys() == NAMES
    assert timing["server_timing.batch_size"] == 2


@pytest.mark.parametrize("width", [4, 4096])
def test_reply_with_its_times_has_its_outputs_too(engine, load, width):
    """Also where the output would be written into the reply by the run."""
    load(onnx_models.identity(shape=("batch", width)), "same", max_batch_size=4)
    rows = nonce_rows(3, 2, width)
    reply = ask(engine, "same", {"input": rows}, server_timing=YES)
    assert reply.raw_output_contents[0] == rows.tobytes()
    assert read_timing(reply).keys() == NAMES


def test_times_are_those_of_this_request(engine, load):
    """They fit into what the caller saw, and the model's own is most of it."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    started = time.monotonic_ns()
    timing = read_timing(ask(engine, "slow", {"input": np.zeros((1, 4), np.float32)}, server_timing=YES))
    elapsed = time.monotonic_ns() - started
    times = [value for name, value in timing.items() if name.endswith("_ns")]
    assert all(value >= 0 for value in times)
    assert timing["server_timing.compute_infer_ns"] == max(times)
    assert sum(times) <= elapsed
    assert timing["server_timing.compute_infer_ns"] == engine.statistics("slow", 1)["run_ns"]
    assert timing["server_timing.queue_ns"] == engine.statistics("slow", 1)["queue_ns"]


def test_requests_of_one_batch_are_told_apart(engine, load):
    """Who asks is told of the whole batch; who does not is told nothing."""
    load(onnx_models.identity(), "same", max_batch_size=4, queue_delay_us=10_000_000)
    asking = [{"server_timing": YES}, {}, {"server_timing": YES}, {}]
    with ThreadPoolExecutor(4) as threads:
        replies = list(
            threads.map(lambda index: ask(engine, "same", {"input": nonce_rows(index, 1)}, **asking[index]), range(4))
        )
    for index, reply in enumerate(replies):
        assert reply.raw_output_contents[0] == nonce_rows(index, 1).tobytes()
        assert read_timing(reply).get("server_timing.batch_size") == (4 if asking[index] else None)


@pytest.mark.parametrize("value", [pb.InferParameter(int64_param=1), pb.InferParameter(string_param="true")])
def test_parameter_of_another_type_is_refused(engine, load, value):
    """As the contract says of parameters that the server reads."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    request = build_request("same", {"input": nonce_rows(1, 1)})
    request.parameters["server_timing"].CopyFrom(value)
    code, text = refusal_of(engine, request.SerializeToString())
    assert (code, text) == (status.INVALID, "parameter 'server_timing' is not a bool")
    assert infer(engine, "same", {"input": nonce_rows(1, 1)})["output"].shape == (1, 4)
