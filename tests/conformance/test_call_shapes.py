"""grpcio's clients, synchronous and asyncio, call the interoperability service in each of the four shapes."""

import queue

import grpc
import pytest

from tests.conformance.interop_service import make_payload, pb, rpc

TIMEOUT_S = 30.0
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)


@pytest.fixture
def stub(interop_target):
    """Stubs for synchronous calls."""
    with interop_target.connect() as channel:
        yield rpc.TestServiceStub(channel)


@pytest.fixture
def call_async(interop_target, loop):
    """Runs `scenario(stub)` in the loop, with stubs of a connection of its own."""

    async def run(scenario):
        async with interop_target.connect_async() as channel:
            return await scenario(rpc.TestServiceStub(channel))

    return lambda scenario: loop.run(run(scenario))


def ask_for(*sizes, **fields):
    """A request for payloads of these sizes."""
    wanted = [pb.ResponseParameters(size=size, interval_us=100) for size in sizes]
    return pb.StreamingOutputCallRequest(response_parameters=wanted, **fields)


def give(size):
    """One request of a stream."""
    return pb.StreamingInputCallRequest(payload=make_payload(size))


def sizes_of(responses):
    """The sizes of their payloads."""
    return tuple(len(response.payload.body) for response in responses)


SIMPLE = pb.SimpleRequest(response_size=314159, payload=make_payload(271828))
PING_PONG = [
    ask_for(answer, payload=make_payload(size)) for size, answer in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True)
]


@pytest.mark.parametrize("way", ["block", "with_call", "future"])
def test_unary_unary_is_answered_in_every_way_to_call(stub, way):
    """One payload of the size that was asked for."""
    if way == "block":
        response = stub.UnaryCall(SIMPLE, timeout=TIMEOUT_S)
    elif way == "with_call":
        response, call = stub.UnaryCall.with_call(SIMPLE, timeout=TIMEOUT_S)
        assert call.code() is grpc.StatusCode.OK
    else:
        response = stub.UnaryCall.future(SIMPLE, timeout=TIMEOUT_S).result()
    assert sizes_of([response]) == (314159,)


def test_empty_message_is_answered_with_one(stub):
    """Messages of no bytes are messages."""
    assert stub.EmptyCall(pb.Empty(), timeout=TIMEOUT_S) == pb.Empty()


def test_unary_stream_is_answered_in_order(stub):
    """As many payloads as were asked for, none of them among these."""
    assert sizes_of(stub.StreamingOutputCall(ask_for(*RESPONSE_SIZES), timeout=TIMEOUT_S)) == RESPONSE_SIZES
    assert sizes_of(stub.StreamingOutputCall(ask_for(), timeout=TIMEOUT_S)) == ()


def test_stream_unary_is_answered_after_the_last(stub):
    """All of them count, and none is not an error."""
    response = stub.StreamingInputCall(map(give, REQUEST_SIZES), timeout=TIMEOUT_S)
    assert response.aggregated_payload_size == sum(REQUEST_SIZES)
    assert stub.StreamingInputCall(iter(()), timeout=TIMEOUT_S).aggregated_payload_size == 0


def test_stream_stream_is_answered_request_by_request(stub):
    """The next request is sent when the answer to the one before has come."""
    requests = queue.SimpleQueue()
    responses = stub.FullDuplexCall(iter(requests.get, None), timeout=TIMEOUT_S)
    received = []
    for request in PING_PONG:
        requests.put(request)
        received.append(next(responses))
    requests.put(None)
    assert list(responses) == []
    assert sizes_of(received) == RESPONSE_SIZES


def test_stream_stream_without_messages_ends_well(stub):
    """None in, none out."""
    assert list(stub.FullDuplexCall(iter(()), timeout=TIMEOUT_S)) == []


def test_unary_unary_is_answered_to_asyncio(call_async):
    """The same from a loop."""

    async def scenario(stub):
        return await stub.UnaryCall(SIMPLE, timeout=TIMEOUT_S)

    assert sizes_of([call_async(scenario)]) == (314159,)


def test_unary_stream_is_answered_to_asyncio(call_async):
    """The same from a loop."""

    async def scenario(stub):
        return [response async for response in stub.StreamingOutputCall(ask_for(*RESPONSE_SIZES), timeout=TIMEOUT_S)]

    assert sizes_of(call_async(scenario)) == RESPONSE_SIZES


def test_stream_unary_is_answered_to_asyncio(call_async):
    """The same from a loop, each request written when the one before has gone."""

    async def scenario(stub):
        call = stub.StreamingInputCall(timeout=TIMEOUT_S)
        for size in REQUEST_SIZES:
            await call.write(give(size))
        await call.done_writing()
        return await call

    assert call_async(scenario).aggregated_payload_size == sum(REQUEST_SIZES)


def test_stream_stream_is_answered_to_asyncio(call_async):
    """Ping and pong by turns, and the end after the last."""

    async def scenario(stub):
        call = stub.FullDuplexCall(timeout=TIMEOUT_S)
        received = []
        for request in PING_PONG:
            await call.write(request)
            received.append(await call.read())
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        return received

    assert sizes_of(call_async(scenario)) == RESPONSE_SIZES


def test_unimplemented_method_is_refused_to_asyncio(call_async):
    """The method is in the contract and in no server."""

    async def scenario(stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.UnimplementedCall(pb.Empty(), timeout=TIMEOUT_S)
        return raised.value.code()

    assert call_async(scenario) is grpc.StatusCode.UNIMPLEMENTED
