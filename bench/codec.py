"""The codec alone: decoding a small request and encoding a reply to it, beside protobuf and NumPy doing the same."""

import time

import numpy as np

from bench.effort import Effort
from bench.models import encode_tiny
from bench.processes import SERVER_CORE, pinned
from bench.rows import Figure, Goal, Row, compare
from kernels.messages import measure_codec
from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse

GOAL_US = 0.4
GOAL_TIMES = 10


def measure(effort: Effort) -> list[Row]:
    """One row: ours, theirs, and how many times faster ours is."""
    message = encode_tiny()
    turns, their_turns = effort.pick(1_000_000, 20_000), effort.pick(50_000, 1_000)
    with pinned(SERVER_CORE):
        ours, theirs = effort.interleave(
            lambda: measure_codec(message, turns) / 1000, lambda: measure_protobuf(message, their_turns) / 1000
        )
    figures = {
        "us_per_request": Figure(tuple(ours)),
        "protobuf_us_per_request": Figure(tuple(theirs)),
        "times_faster": compare(theirs, ours),
    }
    goals = [Goal("us_per_request", at_most=GOAL_US), Goal("times_faster", at_least=GOAL_TIMES)]
    return [Row("codec", figures, {"message_bytes": len(message), "turns": turns}, goals)]


def measure_protobuf(message: bytes, turns: int) -> float:
    """Nanoseconds that protobuf and NumPy take for what kernels.messages.measure_codec does once."""
    output = np.zeros((1, 4), np.float32)
    started = time.perf_counter_ns()
    for _ in range(turns):
        answer_request(message, output)
    return (time.perf_counter_ns() - started) / turns


def answer_request(message: bytes, output: np.ndarray) -> bytes:
    """Parse a request, see its content as an array, and serialize a reply with one output."""
    request = ModelInferRequest.FromString(message)
    tensor = request.inputs[0]
    array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
    reply = ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    reply.outputs.add(name="output", datatype="FP32", shape=(len(array), output.shape[1]))
    reply.raw_output_contents.append(output.tobytes())
    return reply.SerializeToString()
