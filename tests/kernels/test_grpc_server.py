"""The native server as grpcio's clients see it: methods, shapes, pools, limits, start and stop."""

import gc
import queue
import threading
import time
import weakref

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kernels.grpc_server import Server
from tests.kernels.raw_service import SERVICE, WAIT_S, path, refused

Code = grpc.StatusCode


def unary(function, **codecs):
    """A handler of one request and one reply."""
    return grpc.unary_unary_rpc_method_handler(function, **codecs)


def echo(request, context):
    """The request again."""
    return request


ECHO = {"Echo": unary(echo)}


class Gate:
    """A handler that waits until it is opened, and tells when it was entered."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def pass_through(self, request, context):
        """A unary method."""
        self.entered.release()
        assert self.opened.wait(WAIT_S)
        return request

    def stream(self, requests, context):
        """A method that streams both ways; it reads until its client has finished."""
        self.entered.release()
        yield from requests

    def await_entered(self, times=1):
        """Wait until handlers run."""
        for _ in range(times):
            assert self.entered.acquire(timeout=WAIT_S)


@pytest.fixture
def gate():
    """A gate that no handler waits for after the test."""
    made = Gate()
    yield made
    made.opened.set()


def wait_until(condition):
    """Return as soon as something holds."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


# ---- the four shapes


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_unary_call_gets_its_own_bytes_back(serve, size):
    """Of any size, an empty message among them."""
    message = b"x" * size
    assert serve(ECHO).call("Echo", message) == message


def test_messages_pass_their_serializers(serve):
    """A handler works on objects."""
    double = unary(
        lambda request, context: 2 * request,
        request_deserializer=lambda message: int(message),
        response_serializer=lambda reply: str(reply).encode(),
    )
    assert serve({"Double": double}).call("Double", b"21") == b"42"


def test_server_stream_gives_every_reply_in_order(serve):
    """And then the status."""
    count = grpc.unary_stream_rpc_method_handler(lambda request, context: (b"%d" % n for n in range(int(request))))
    replies = serve({"Count": count}).read("Count", b"100")
    assert list(replies) == [b"%d" % n for n in range(100)]
    assert replies.code() is Code.OK


def test_client_stream_is_read_to_its_end(serve):
    """Each message once, none lost."""
    join = grpc.stream_unary_rpc_method_handler(lambda requests, context: b",".join(requests))
    service = serve({"Join": join})
    assert service.write("Join", [b"a", b"", b"c"]) == b"a,,c"
    assert service.write("Join", []) == b""


def test_streams_both_ways_talk_in_turns(serve):
    """A reply comes before the next request is written."""
    shout = grpc.stream_stream_rpc_method_handler(lambda requests, context: (r.upper() for r in requests))
    said = threading.Semaphore(1)

    def speak():
        for word in (b"one", b"two", b"three"):
            assert said.acquire(timeout=WAIT_S)
            yield word

    heard = []
    for reply in serve({"Shout": shout}).talk("Shout", speak()):
        heard.append(reply)
        said.release()
    assert heard == [b"ONE", b"TWO", b"THREE"]


def test_large_stream_to_a_slow_reader_does_not_pile_up(serve):
    """The handler waits for its client, whose every message still comes."""
    given = []

    def pour(request, context):
        for number in range(1000):
            given.append(number)
            yield b"%d" % number + b" " * 100_000

    replies = serve({"Pour": grpc.unary_stream_rpc_method_handler(pour)}).read("Pour", timeout=60)
    assert next(replies).split() == [b"0"]
    time.sleep(0.5)  # time in which a handler that does not wait would give all
    assert len(given) < 500
    assert [int(reply) for reply in replies] == list(range(1, 1000))


def test_stream_that_its_client_cancels_ends_its_handler(serve):
    """The generator is closed, also while it waits for its client to read."""
    closed = threading.Event()

    def pour(request, context):
        try:
            while True:
                yield b" " * 100_000
        finally:
            closed.set()

    replies = serve({"Pour": grpc.unary_stream_rpc_method_handler(pour)}).read("Pour")
    next(replies)
    replies.cancel()
    assert closed.wait(WAIT_S)


# ---- who answers


def test_unknown_method_is_unimplemented(serve):
    """In grpcio's words."""
    with refused(Code.UNIMPLEMENTED, "Method not found!"):
        serve(ECHO).call("Other")


def test_registered_handler_comes_before_generic_ones(serve):
    """And a generic one answers what nobody has registered."""
    service = serve(ECHO)
    generic = grpc.method_handlers_generic_handler(
        SERVICE, {name: unary(lambda request, context: b"generic") for name in ("Echo", "Other")}
    )
    service.server.add_generic_rpc_handlers((generic,))
    assert [service.call(name, b"mine") for name in ("Echo", "Other")] == [b"mine", b"generic"]


def test_generic_handler_that_fails_gives_unknown(serve, caplog):
    """The failure is in the log."""

    class Broken(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            raise ValueError("broken lookup")

    service = serve({})
    service.server.add_generic_rpc_handlers((Broken(),))
    with refused(Code.UNKNOWN, "Error in service handler!"):
        service.call("Echo")
    assert "broken lookup" in caplog.text


def test_interceptors_see_method_and_metadata_and_may_answer(serve):
    """In the order in which they were given."""
    seen = []

    class Recorder(grpc.ServerInterceptor):
        def __init__(self, name):
            self._name = name

        def intercept_service(self, continuation, handler_call_details):
            metadata = dict(handler_call_details.invocation_metadata)
            seen.append((self._name, handler_call_details.method, metadata["who"]))
            if metadata["who"] == "nobody":
                return unary(lambda request, context: context.abort(Code.UNAUTHENTICATED, "who are you?"))
            return continuation(handler_call_details)

    service = serve(ECHO, interceptors=(Recorder("first"), Recorder("second")))
    assert service.call("Echo", b"1", metadata=(("who", "me"),)) == b"1"
    assert seen == [("first", path("Echo"), "me"), ("second", path("Echo"), "me")]
    with refused(Code.UNAUTHENTICATED, "who are you?"):
        service.call("Echo", metadata=(("who", "nobody"),))


# ---- failures


def fail(request, context):
    """Break."""
    raise ValueError("broken handler")


def leave(request, context):
    """End the thread, as a handler that calls sys.exit does."""
    raise SystemExit("leaving")


class UnprintableError(Exception):
    """Has no text."""

    def __str__(self):
        raise ValueError("no text")


def fail_unprintably(request, context):
    """Break, and do not say how."""
    raise UnprintableError


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        (unary(fail), Code.UNKNOWN, "Exception calling application: broken handler"),
        (unary(leave), Code.UNKNOWN, "Exception calling application: leaving"),
        (unary(fail_unprintably), Code.UNKNOWN, "Calling application raised unprintable Exception!"),
        (unary(echo, request_deserializer=int), Code.INTERNAL, "Exception deserializing request!"),
        (unary(echo, response_serializer=int), Code.INTERNAL, "Failed to serialize response!"),
        (unary(lambda request, context: None), Code.INTERNAL, "Failed to serialize response!"),
    ],
)
def test_broken_handler_gives_grpcio_s_status(serve, caplog, handler, code, text):
    """The failure is in the log, and the next call is served."""
    service = serve({"Broken": handler, **ECHO})
    with refused(code, text):
        service.call("Broken", b"no number")
    assert caplog.records
    assert service.call("Echo", b"1") == b"1"


def test_stream_that_breaks_gives_what_it_had_and_the_status(serve):
    """Replies first."""

    def count(request, context):
        yield b"1"
        raise ValueError("broken handler")

    replies = serve({"Count": grpc.unary_stream_rpc_method_handler(count)}).read("Count")
    assert next(replies) == b"1"
    with refused(Code.UNKNOWN, "Exception iterating responses: broken handler"):
        next(replies)


def test_client_stream_with_an_unreadable_message_ends(serve):
    """The handler sees its requests end."""
    seen = []

    def collect(requests, context):
        seen.extend(requests)
        return b""

    handler = grpc.stream_unary_rpc_method_handler(collect, request_deserializer=int)
    with refused(Code.INTERNAL, "Exception deserializing request!"):
        serve({"Collect": handler}).write("Collect", [b"1", b"2", b"x", b"4"])
    assert seen == [1, 2]


def test_unary_call_without_a_request_is_unimplemented(serve):
    """As grpcio has it."""
    service = serve(ECHO)
    with refused(Code.UNIMPLEMENTED, f'"{path("Echo")}" requires exactly one request message.'):
        service.write("Echo", [])


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


# ---- start and stop


def test_secure_port_with_grpcio_s_credentials_names_our_own():
    """They are opaque."""
    with pytest.raises(TypeError, match=r"kernels\.tls\.TlsSettings"):
        Server().add_secure_port("127.0.0.1:0", grpc.local_server_credentials())


def test_port_that_is_taken_cannot_be_had_twice(serve):
    """And the error says which."""
    address = serve(ECHO).address
    with pytest.raises(RuntimeError, match=address):
        Server().add_insecure_port(address)


def test_server_starts_once(serve):
    """As grpcio's."""
    service = serve(ECHO)
    with pytest.raises(ValueError, match="already-started"):
        service.server.start()


def test_stop_lets_running_calls_finish(serve, gate):
    """And takes no new ones."""
    service = serve({"Wait": unary(gate.pass_through)})
    call = service.start("Wait", b"1")
    gate.await_entered()
    stopped = service.server.stop(WAIT_S)
    assert service.server.wait_for_termination(0.1)
    with service.connect() as late, refused(Code.UNAVAILABLE):
        late.unary_unary(path("Wait"))(b"", timeout=WAIT_S)
    gate.opened.set()
    assert call.result() == b"1"
    assert stopped.wait(WAIT_S)
    assert not service.server.wait_for_termination(0)


def test_stop_cancels_what_is_left_after_the_grace(serve, gate):
    """The handler is told."""
    cancelled = threading.Event()

    def wait(request, context):
        context.add_callback(cancelled.set)
        return gate.pass_through(request, context)

    service = serve({"Wait": unary(wait)})
    call = service.start("Wait")
    gate.await_entered()
    begun = time.monotonic()
    stopped = service.server.stop(0.2)
    assert stopped.wait(WAIT_S)
    assert 0.2 <= time.monotonic() - begun < WAIT_S
    assert cancelled.wait(WAIT_S)
    assert call.exception(WAIT_S).code() in (Code.CANCELLED, Code.UNAVAILABLE)


def test_second_stop_may_be_shorter(serve, gate):
    """The shortest grace counts."""
    service = serve({"Wait": unary(gate.pass_through)})
    call = service.start("Wait")
    gate.await_entered()
    first = service.server.stop(60)
    second = service.server.stop(None)
    assert second.is_set()
    assert first.wait(WAIT_S)
    assert call.exception(WAIT_S) is not None


def test_server_that_never_started_can_be_stopped():
    """It gives its port back."""
    server = Server()
    port = server.add_insecure_port("127.0.0.1:0")
    assert server.stop(None).is_set()
    other = Server()
    assert other.add_insecure_port(f"127.0.0.1:{port}") == port
    other.stop(None)


def test_server_that_is_dropped_ends_by_itself():
    """Nobody is left to stop it."""
    server = Server()
    server.add_insecure_port("127.0.0.1:0")
    server.start()
    dropped, dispatcher = weakref.ref(server), server._dispatcher
    del server
    gc.collect()
    assert dropped() is None
    assert dispatcher.stopped.wait(WAIT_S)
