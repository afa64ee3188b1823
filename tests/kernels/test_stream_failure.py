"""Triton's header triton_grpc_error: the first request of a stream that fails ends it with its status."""

import grpc
import numpy as np
import onnx_models
import pytest
from bound_service import SERVICE, WAIT_S, BoundService
from inference_messages import encode_request

from service.pb.open_inference_pb2 import ModelStreamInferResponse

ASKED = ("triton_grpc_error", "true")
# More than are under way on one stream at a time.
MANY = 200


def message(name, request_id="", columns=4):
    """A request of one row, which does not fit when it has other columns."""
    return encode_request(name, {"input": np.full((1, columns), 1, np.float32)}, request_id=request_id)


def talk(channel, messages, *metadata):
    """A stream of messages: the ids that were answered, by what, and the status."""
    exchange = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    call = exchange(iter(messages), timeout=WAIT_S, metadata=metadata)
    answers = []
    try:
        for content in call:
            response = ModelStreamInferResponse.FromString(content)
            answers.append((response.infer_response.id, response.error_message))
    except grpc.RpcError as error:
        return answers, error.code(), error.details()
    return answers, call.code(), call.details()


@pytest.fixture
def service(engine, load):
    """A quick model that answers with what it gets, and a slow one of one request at a time."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    load(onnx_models.slow(50_000), "slow", max_batch_size=1)
    with BoundService(engine) as service:
        yield service


def test_failure_ends_the_stream_that_asks_for_it_after_the_answers_before_it(engine, service):
    """However long they take; what comes behind it is withdrawn."""
    before = [message("slow", "1"), message("same", "2"), message("slow", "3")]
    behind = [message("slow", str(place)) for place in range(MANY)]
    with service.connect() as channel:
        answers, code, text = talk(channel, [*before, message("same", columns=5), *behind], ASKED)
        assert answers == [("1", ""), ("2", ""), ("3", "")]
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text == "input 'input' has the wrong shape: expected [-1,4], got [1,5]"
        assert talk(channel, [message("same", "next")], ASKED) == ([("next", "")], grpc.StatusCode.OK, "")
    assert engine.read_statistics("slow", 1).counts["success"] < MANY


def test_first_of_several_failures_gives_the_status(service):
    """Also when a later one is known before it."""
    unknown = encode_request("nobody", {"input": np.zeros((1, 4), np.float32)})
    with service.connect() as channel:
        answers, code, _ = talk(channel, [message("slow", "1"), unknown, message("same", columns=5)], ASKED)
    assert ([key for key, _ in answers], code) == (["1"], grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("metadata", [(), (("triton_grpc_error", "false"),), (("triton_grpc_error", "TRUE"),)])
def test_failure_is_an_answer_where_nothing_else_is_asked_for(service, metadata):
    """And the stream goes on."""
    with service.connect() as channel:
        messages = [message("same", "1"), message("same", "2", columns=5), message("same", "3")]
        answers, code, _ = talk(channel, messages, *metadata)
    assert [(key, bool(text)) for key, text in answers] == [("1", False), ("2", True), ("3", False)]
    assert code is grpc.StatusCode.OK


def test_streams_that_fail_give_back_what_they_held(service):
    """Many, each with requests in flight."""
    with service.connect() as channel:
        for _ in range(50):
            talk(channel, [message("same", columns=5), *[message("same")] * MANY], ASKED)
    service.server.stop(0.5).wait(WAIT_S)
    assert service.server._transport.statistics() == {"connections": 0, "buffered_bytes": 0}
