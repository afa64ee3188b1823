"""Many calls at once: each has its own answer, and none keeps the others from theirs."""

import asyncio
import itertools
import threading
import time
from contextlib import ExitStack

import grpc
import pytest

from tests.conformance.interop_service import add_interop_service, pb, rpc
from tests.conformance.probe import PATH, TIMEOUT_S
from tests.conformance.running_server import running_server
from tests.end_to_end.targets import Target

CALLS = 400
STREAMS = 20
CONNECTIONS = 4
# A server that had read all would have done so long before it has done nothing for as long.
QUIET_S = 0.5


def echo(request, context):
    """A servicer that gives back what it is given."""
    return request


def test_calls_on_few_threads_get_their_own_answers(open_probe):
    """Many more than threads, over several connections."""
    probe = open_probe("unary_unary", echo, threads=2)
    methods = [probe.connect() for _ in range(CONNECTIONS)]
    calls = [methods[nonce % CONNECTIONS].future(b"%d" % nonce, timeout=TIMEOUT_S) for nonce in range(CALLS)]
    assert [call.result() for call in calls] == [b"%d" % nonce for nonce in range(CALLS)]


def test_calls_of_asyncio_get_their_own_answers(open_probe, loop):
    """All of them over one connection."""
    probe = open_probe("unary_unary", echo, threads=2)

    async def call_all():
        async with grpc.aio.insecure_channel(probe.address) as channel:
            method = channel.unary_unary(PATH)
            return await asyncio.gather(*(method(b"%d" % nonce, timeout=TIMEOUT_S) for nonce in range(CALLS)))

    assert loop.run(call_all()) == [b"%d" % nonce for nonce in range(CALLS)]


def test_streams_by_turns_get_their_own_answers(open_probe, loop):
    """Each is written to when all have answered."""
    probe = open_probe("stream_stream", lambda requests, context: requests, threads=STREAMS)

    async def talk():
        async with grpc.aio.insecure_channel(probe.address) as channel:
            calls = [channel.stream_stream(PATH)(timeout=TIMEOUT_S) for _ in range(STREAMS)]
            for turn in range(10):
                for place, call in enumerate(calls):
                    await call.write(b"%d of %d" % (turn, place))
                for place, call in enumerate(calls):
                    assert await call.read() == b"%d of %d" % (turn, place)
            for call in calls:
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF

    loop.run(talk())


@pytest.mark.usefixtures("native")
def test_blocked_streams_leave_room_for_a_unary_call(kind):
    """Five times as many as threads, each waiting for its client, as those who watch health do."""
    threads, client_may_end = 2, threading.Event()
    request = pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=1)])

    def send_one():
        yield request
        client_may_end.wait(TIMEOUT_S)

    with running_server(kind, add_interop_service, threads=threads) as (_, address), ExitStack() as stack:
        stub = rpc.TestServiceStub(stack.enter_context(Target(address).connect()))
        stack.callback(client_may_end.set)
        streams = []
        for _ in range(threads):
            streams.append(stub.FullDuplexCall(send_one(), timeout=TIMEOUT_S))
            next(streams[-1])
        streams += [stub.FullDuplexCall(send_one(), timeout=TIMEOUT_S) for _ in range(4 * threads)]
        assert stub.EmptyCall(pb.Empty(), timeout=TIMEOUT_S) == pb.Empty()
        client_may_end.set()
        left = [len(list(stream)) for stream in streams]
    assert left == [0] * threads + [1] * (4 * threads)


def test_client_that_does_not_read_holds_its_stream_back(serve):
    """The servicer is not asked for more than fits on the way, and the client gets all in the end."""
    asked, total, response = itertools.count(1), 2000, bytes(64 * 1024)
    progress = [0]

    def answer(request, context):
        for _ in range(total):
            progress[0] = next(asked)
            yield response

    call = serve("unary_stream", answer)(b"", timeout=TIMEOUT_S)
    assert next(call) == response
    assert await_standstill(progress) < total
    assert sum(1 for _ in call) == total - 1


def await_standstill(progress):
    """The count, once it has not changed for a while."""
    seen, since = progress[0], time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(QUIET_S / 20)
        if progress[0] != seen:
            seen, since = progress[0], time.monotonic()
    return seen
