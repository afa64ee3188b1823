"""What is bounded: sizes of messages, the queue, time; each bound has its status, and what is refused never runs."""

import time

import grpc
import numpy as np
import pytest
from inference_messages import build_request

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.conftest import MAX_MESSAGE_BYTES
from tests.end_to_end.load import OK, find_wrong, make_request, run_load
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.raw_http2 import RawConnection

TIMEOUT_S = 60.0
ROW = np.array([[1, 2, 3, 4]], np.float32)
CALLS = 30


def slow_request():
    """A request that takes a while, in a model that runs one at a time."""
    return build_request("slow", {"input": ROW})


def measure_slow(stub):
    """Seconds that one such request takes now."""
    begun = time.monotonic()
    stub.ModelInfer(slow_request(), timeout=TIMEOUT_S)
    return time.monotonic() - begun


def find_status(call):
    """The status of a call that has been made."""
    return call.code() if call.exception(TIMEOUT_S) else grpc.StatusCode.OK


@pytest.mark.parametrize("excess_bytes", [1, 2**20])
def test_message_over_the_limit_is_exhausted_and_the_next_is_served(stub, excess_bytes):
    """A little or a lot over: the limit is in the text, and the connection goes on."""
    request = build_request("wide", {"input": np.zeros((MAX_MESSAGE_BYTES // 8 - 100, 1))})
    request.raw_input_contents[0] += bytes(MAX_MESSAGE_BYTES + excess_bytes - request.ByteSize())
    assert request.ByteSize() == MAX_MESSAGE_BYTES + excess_bytes
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request, timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in raised.value.details()
    assert find_wrong(stub.ModelInfer(make_request(5), timeout=TIMEOUT_S), 5) == ""


def test_message_at_the_limit_is_served(stub):
    """The limit itself is allowed."""
    request = make_request(5)
    padding = request.parameters["padding"]
    padding.string_param = "x" * (MAX_MESSAGE_BYTES - 200)
    padding.string_param += "x" * (MAX_MESSAGE_BYTES - request.ByteSize())
    assert request.ByteSize() == MAX_MESSAGE_BYTES
    assert find_wrong(stub.ModelInfer(request, timeout=TIMEOUT_S), 5) == ""


def test_reply_over_the_limit_is_exhausted_and_the_next_is_served(stub):
    """A small request for too large a reply."""
    request = build_request("expander", {"input": np.array([MAX_MESSAGE_BYTES])})
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request, timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert find_wrong(stub.ModelInfer(make_request(5), timeout=TIMEOUT_S), 5) == ""


def test_request_whose_deadline_has_passed_is_told_so(stub):
    """The header says so, as that of a client whose clock ran out on the way; servers round it up to a millisecond."""
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(slow_request(), metadata=[("grpc-timeout", "1n")])
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert find_wrong(stub.ModelInfer(make_request(5), timeout=TIMEOUT_S), 5) == ""


def test_requests_whose_deadline_passes_in_the_queue_never_run(plain):
    """They are told at once, and whoever comes next does not wait for them."""
    with plain.connect() as channel, plain.connect() as other:
        stub, later = GRPCInferenceServiceStub(channel), GRPCInferenceServiceStub(other)
        run_s = measure_slow(stub)
        calls = [stub.ModelInfer.future(slow_request(), timeout=run_s / 2) for _ in range(CALLS)]
        statuses = [find_status(call) for call in calls]
        # On a machine that was busy a moment ago the first may make it.
        assert set(statuses) <= {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert statuses.count(grpc.StatusCode.DEADLINE_EXCEEDED) > CALLS / 2
        assert measure_slow(later) < CALLS / 3 * run_s


@pytest.mark.parametrize("way", ["plain", "gateway"])
def test_requests_that_are_cancelled_in_the_queue_never_run(request, way):
    """As with deadlines; the marker behind them has come back, so the server had accepted them all."""
    target = request.getfixturevalue(way)
    with target.connect() as channel, target.connect() as other:
        stub, later = GRPCInferenceServiceStub(channel), GRPCInferenceServiceStub(other)
        run_s = measure_slow(stub)
        calls = [stub.ModelInfer.future(slow_request(), timeout=TIMEOUT_S) for _ in range(CALLS)]
        stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
        assert all(call.cancel() for call in calls if not call.done())
        assert sum(call.cancelled() for call in calls) > CALLS / 2
        assert measure_slow(later) < CALLS / 3 * run_s


def test_requests_of_a_client_that_vanishes_never_run(plain):
    """A connection that is reset takes its queue with it."""
    with plain.connect() as channel, RawConnection(plain.address) as vanishing:
        stub = GRPCInferenceServiceStub(channel)
        run_s = measure_slow(stub)
        for _ in range(CALLS):
            vanishing.send_call(slow_request().SerializeToString())
        vanishing.await_ping()
        vanishing.reset()
        assert measure_slow(stub) < CALLS / 3 * run_s


@pytest.fixture
def short_queue(transport, repository):
    """A server whose queues hold two requests."""
    with ServerProcess(repository, "--insecure", "--max-queue-requests", 2) as server:
        yield Target(server.address)


def test_request_that_finds_the_queue_full_is_exhausted(clients, short_queue):
    """What is in the queue is served, what finds it full is told so by name, and other models go on."""
    with short_queue.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        with run_load(clients, short_queue, callers=2) as load:
            calls = [stub.ModelInfer.future(slow_request(), timeout=TIMEOUT_S) for _ in range(CALLS)]
            statuses = [find_status(call) for call in calls]
            load.wait_for_more(20)
        refused = [call.details() for call, status in zip(calls, statuses, strict=True) if status.name != OK]
        assert set(statuses) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert statuses.count(grpc.StatusCode.OK) >= 2
        assert set(refused) == {"the queue of model 'slow' version 1 is full: 2 requests wait"}
        assert load.failures == []
        stub.ModelInfer(slow_request(), timeout=TIMEOUT_S)


def test_cancellation_storm_leaves_nothing_behind(clients, transport, repository):
    """Thousands of calls given up at any moment: others are served, memory comes back, and at the end none is left."""
    with ServerProcess(repository, "--insecure") as server:
        target = Target(server.address)
        with run_load(clients, target, callers=4) as load:
            clients.run(give_up(target, 500))
            load.wait_for_more(50)
            before = server.read_memory_bytes()
            clients.run(give_up(target, 4000))
            load.wait_for_more(50)
        assert load.failures == []
        # Had they stayed, their messages alone would be 250 MiB.
        assert server.read_memory_bytes() - before < 100 * 2**20
        server.terminate()
        assert server.await_event("stopped")["drained"]


async def give_up(target, count):
    """Start calls of 64 KiB and cancel each, some before it is sent and some when it runs."""
    request = build_request("wide", {"input": np.zeros((64, 128))})
    async with target.connect_async() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(count // 100):
            calls = [stub.ModelInfer(request, timeout=TIMEOUT_S) for _ in range(100)]
            for call in calls[::2]:
                call.cancel()
            # The round trip of another call lets the server come to the rest.
            await stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
            for call in calls[1::2]:
                call.cancel()
