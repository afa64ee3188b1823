"""The native server as grpcio's clients see it: its threads, and calls that nobody waits for any more."""

import queue
import threading

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.kernels.raw_handlers import ECHO, fail, unary, wait_until
from tests.kernels.raw_service import WAIT_S, path, refused

Code = grpc.StatusCode


# ---- threads


def test_slow_senders_hold_no_thread(serve):
    """Calls whose request never comes leave the only thread to others."""
    service = serve(ECHO, threads=1)
    finish = threading.Event()
    waiting = [service.channel.stream_unary(path("Echo")).future(_never(finish)) for _ in range(8)]
    assert service.call("Echo", b"1") == b"1"
    for call in waiting:
        call.cancel()
    finish.set()


def _never(finish):
    finish.wait(WAIT_S)
    yield from ()


def test_streams_beyond_their_threads_leave_unary_calls_alone(serve, gate):
    """However many streams are open."""
    talk = grpc.stream_stream_rpc_method_handler(gate.stream)
    service = serve({"Talk": talk, **ECHO}, threads=1, stream_threads=2)
    finish = threading.Event()
    streams = [service.talk("Talk", _never(finish)) for _ in range(20)]
    gate.await_entered(2)
    assert service.call("Echo", b"1") == b"1"
    finish.set()
    assert [list(stream) for stream in streams] == [[]] * 20


def test_calls_beyond_threads_and_queue_are_refused(serve, gate, monkeypatch):
    """With RESOURCE_EXHAUSTED, while those before them are served."""
    monkeypatch.setattr("kernels.grpc_server.MAX_QUEUED_CALLS", 2)
    service = serve({"Wait": unary(gate.pass_through)}, threads=1)
    first = service.start("Wait", b"0")
    gate.await_entered()
    others = [service.start("Wait", b"%d" % number) for number in range(1, 6)]
    ended = queue.SimpleQueue()
    for call in others:
        call.add_done_callback(ended.put)
    assert [ended.get(timeout=WAIT_S).code() for _ in range(3)] == [Code.RESOURCE_EXHAUSTED] * 3
    gate.opened.set()
    assert [ended.get(timeout=WAIT_S).code() for _ in range(2)] == [Code.OK] * 2
    assert first.result() == b"0"


def test_more_calls_than_the_maximum_are_refused(serve, gate):
    """In grpcio's words; a call that has ended makes room."""
    service = serve({"Wait": unary(gate.pass_through)}, threads=4, maximum_concurrent_rpcs=2)
    running = [service.start("Wait", b"1") for _ in range(2)]
    gate.await_entered(2)
    with refused(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"):
        service.call("Wait")
    gate.opened.set()
    assert [call.result() for call in running] == [b"1", b"1"]
    assert service.call("Wait", b"2") == b"2"


def test_watches_of_grpcio_s_health_servicer_hold_no_thread(serve):
    """Its Watch is marked as non-blocking: more watchers than threads of any kind all hear of a change."""
    service = serve(ECHO, threads=1, stream_threads=1)
    servicer = health.HealthServicer(experimental_non_blocking=True)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, service.server)
    stub = health_pb2_grpc.HealthStub(service.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S) for _ in range(10)]
    assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.SERVING}
    assert service.call("Echo", b"1") == b"1"
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.NOT_SERVING}
    for watch in watches:
        watch.cancel()


# ---- deadlines and cancellation


def test_deadline_ends_the_call_for_client_and_handler(serve):
    """The handler learns that nobody waits any more."""
    ended = threading.Event()

    def wait(request, context):
        assert 0 < context.time_remaining() < 1.6
        assert context.add_callback(ended.set)
        assert ended.wait(WAIT_S)
        assert not context.is_active()
        assert context.time_remaining() < 0.1  # the client may have broken off a little before
        assert not context.add_callback(fail)
        return b"too late"

    with refused(Code.DEADLINE_EXCEEDED):
        serve({"Wait": unary(wait)}).call("Wait", timeout=1.5)
    assert ended.wait(WAIT_S)


def test_request_iterator_of_an_expired_call_raises(serve):
    """So that a handler that only reads ends too."""
    raised = threading.Event()

    def read(requests, context):
        try:
            list(requests)
        except grpc.RpcError:
            raised.set()
            raise

    finish = threading.Event()
    with refused(Code.DEADLINE_EXCEEDED):
        serve({"Read": grpc.stream_unary_rpc_method_handler(read)}).write("Read", _never(finish), timeout=1.5)
    assert raised.wait(WAIT_S)
    finish.set()


def test_cancelled_call_tells_its_handler(serve, gate):
    """By callback and state."""
    cancelled = threading.Event()

    def wait(request, context):
        context.add_callback(cancelled.set)
        return gate.pass_through(request, context)

    call = serve({"Wait": unary(wait)}).start("Wait")
    gate.await_entered()
    call.cancel()
    assert cancelled.wait(WAIT_S)


def test_cancelled_call_that_waits_for_a_thread_never_runs(serve, gate):
    """Its place goes to the next."""
    seen = []

    def note(request, context):
        seen.append(request)
        return request

    service = serve({"Wait": unary(gate.pass_through), "Note": unary(note)}, threads=1)
    first = service.start("Wait")
    gate.await_entered()
    queued = service.start("Note", b"1")
    with refused(Code.DEADLINE_EXCEEDED):
        service.call("Note", b"2", timeout=0.2)
    wait_until(lambda: len(service.server._dispatcher._calls) == 2)
    gate.opened.set()
    assert (first.result(), queued.result()) == (b"", b"1")
    assert service.call("Note", b"3") == b"3"
    assert seen == [b"1", b"3"]
