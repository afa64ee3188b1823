"""ModelStreamInfer: many requests over one stream, by every way to a server."""

import queue
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference_messages import build_request

from service.pb.open_inference_pb2 import ModelStreamInferResponse
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request

TIMEOUT_S = 60.0
ROW = np.array([[1, 2, 3, 4]], np.float32)
INFER_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


class Conversation:
    """One stream: says what it is given and hears the answers; leaving it as a context finishes the requests."""

    def __init__(self, stub):
        self._requests = queue.SimpleQueue()
        self.call = stub.ModelStreamInfer(iter(self._requests.get, None), timeout=TIMEOUT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()

    def say(self, *requests):
        """Send requests."""
        for request in requests:
            self._requests.put(request)

    def finish(self):
        """Send no more."""
        self._requests.put(None)

    def hear(self):
        """The next answer."""
        return next(self.call)


def slow(request_id=""):
    """A request that takes a while."""
    return build_request("slow", {"input": ROW}, request_id=request_id)


def test_stream_answers_each_request_with_its_own_rows_in_their_order(stub):
    """More of them than are under way at a time."""
    nonces = range(1, 501)
    replies = list(stub.ModelStreamInfer(map(make_request, nonces), timeout=TIMEOUT_S))
    assert not any(reply.error_message for reply in replies)
    wrong = [find_wrong(reply.infer_response, nonce) for reply, nonce in zip(replies, nonces, strict=True)]
    assert not any(wrong)


def test_stream_can_be_a_conversation(stub):
    """An answer comes before the next request is sent."""
    with Conversation(stub) as stream:
        for nonce in (3, 1, 2):
            stream.say(make_request(nonce))
            assert find_wrong(stream.hear().infer_response, nonce) == ""
        stream.finish()
        assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK


def test_quick_request_waits_for_the_slow_one_before_it(stub):
    """Answers keep the order of the requests, whatever model they are for."""
    requests = [slow("first"), make_request(2), slow("third"), make_request(4)]
    replies = list(stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S))
    assert [reply.infer_response.id for reply in replies] == ["first", "nonce-2", "third", "nonce-4"]


def test_request_that_fails_settles_itself_alone(stub):
    """It is answered with its reason and its id; those around it with their rows, and the stream ends well."""
    wrong = build_request("adder", {"input": np.zeros((1, 3), np.int64)}, request_id="wrong shape")
    unknown = build_request("adder", {"input": np.zeros((1, 4), np.int64)}, version="9", request_id="unknown version")
    call = stub.ModelStreamInfer(iter([make_request(1), wrong, make_request(2), unknown]), timeout=TIMEOUT_S)
    first, second, third, fourth = list(call)
    assert [find_wrong(reply.infer_response, nonce) for reply, nonce in ((first, 1), (third, 2))] == ["", ""]
    assert "input 'input' has the wrong shape" in second.error_message
    assert second.infer_response.id == "wrong shape"
    assert "9" in fourth.error_message
    assert fourth.infer_response.id == "unknown version"
    assert call.code() is grpc.StatusCode.OK


def test_request_that_fails_ends_the_stream_where_its_caller_asks_for_that(stub):
    """Triton's header, by every way: the answers before it come, and then its status."""
    wrong = build_request("adder", {"input": np.zeros((1, 3), np.int64)})
    requests = [slow("first"), make_request(2), wrong, *map(make_request, range(4, 40))]
    call = stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S, metadata=(("triton_grpc_error", "true"),))
    assert next(call).infer_response.id == "first"
    assert find_wrong(next(call).infer_response, 2) == ""
    with pytest.raises(grpc.RpcError, match="input 'input' has the wrong shape") as raised:
        next(call)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_message_that_is_no_request_settles_itself_alone(plain):
    """Bytes that nobody can read name no id."""
    good = make_request(7).SerializeToString()
    with plain.connect() as channel:
        call = channel.stream_stream(INFER_STREAM)(iter([good, b"\xff\xff", b"", good]), timeout=TIMEOUT_S)
        replies = [ModelStreamInferResponse.FromString(reply) for reply in call]
    assert [bool(reply.error_message) for reply in replies] == [False, True, True, False]
    assert [reply.infer_response.id for reply in replies] == ["nonce-7", "", "", "nonce-7"]


def test_stream_without_a_request_ends_well(plain):
    """There is nothing to answer."""
    with plain.connect() as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([]), timeout=TIMEOUT_S)
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK


def test_version_header_holds_for_each_request_of_a_stream(plain):
    """As for a single call."""
    with plain.connect() as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            map(make_request, (1, 2)), timeout=TIMEOUT_S, metadata=(("sluice-model-version", "1"),)
        )
        assert [reply.infer_response.model_version for reply in call] == ["1", "1"]


def test_stream_that_is_cancelled_withdraws_its_requests(plain):
    """A call that comes after it does not wait for them."""
    with plain.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        begun = time.monotonic()
        stub.ModelInfer(slow(), timeout=TIMEOUT_S)
        once = time.monotonic() - begun
        with Conversation(stub) as stream:
            stream.say(*[slow()] * 60)
            stream.hear()
            stream.call.cancel()
            begun = time.monotonic()
            stub.ModelInfer(slow(), timeout=TIMEOUT_S)
            assert time.monotonic() - begun < 20 * once


def test_deadline_ends_a_stream(plain):
    """Whatever is under way."""
    with plain.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(iter([slow()] * 60), timeout=0.2)
        with pytest.raises(grpc.RpcError) as raised:
            list(call)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert find_wrong(stub.ModelInfer(make_request(1), timeout=TIMEOUT_S), 1) == ""


def test_replies_that_a_client_does_not_read_hold_up_nobody_else(plain_server, plain):
    """The server reads no more requests than it may hold replies for, and its memory stays what it is."""
    request = build_request("identity_FP32", {"input": np.zeros((1, 250_000), np.float32)})
    before = plain_server.read_memory_bytes()
    finished = threading.Event()

    def pour():
        for _ in range(2000):
            if finished.is_set():
                return
            yield request

    with plain.connect() as channel, plain.connect() as other:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(pour(), timeout=TIMEOUT_S)
        stub = GRPCInferenceServiceStub(other)
        for nonce in range(1, 300):
            assert find_wrong(stub.ModelInfer(make_request(nonce), timeout=TIMEOUT_S), nonce) == ""
        assert plain_server.read_memory_bytes() - before < 500 * 2**20
        finished.set()
        call.cancel()
        assert health_pb2_grpc.HealthStub(other).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status
