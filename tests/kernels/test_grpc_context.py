"""The servicer's context on the native server: what it tells a handler, and what it makes of the answer."""

import contextvars
import inspect
import threading

import grpc
import pytest

from kernels.grpc_context import ServicerContext
from tests.kernels.raw_service import WAIT_S, refused

Code = grpc.StatusCode


@pytest.fixture
def ask(serve):
    """Call a handler: ask(function) gives the call after its end, with `result`, `code()` and so on."""

    def call(function, *, timeout=WAIT_S, **options):
        service = serve({"Method": grpc.unary_unary_rpc_method_handler(function)})
        made = service.start("Method", b"question", timeout=timeout, **options)
        made.exception(WAIT_S)
        return made

    return call


@pytest.fixture
def told(ask):
    """What a handler finds out: told(function of the context)."""

    def ask_context(read, **options):
        seen = []

        def handler(request, context):
            seen.append(read(context))
            return b""

        assert ask(handler, **options).code() is Code.OK
        return seen[0]

    return ask_context


def test_context_has_every_method_of_grpcio_s():
    """Whatever a servicer written for grpcio may call."""
    names = {name for name, _ in inspect.getmembers(grpc.ServicerContext, callable) if not name.startswith("_")}
    assert names <= set(vars(ServicerContext))
    assert not ServicerContext.__abstractmethods__


# ---- what the handler is told


def test_metadata_of_the_client_reach_the_handler(told):
    """Text as text, binary as bytes, repeated keys repeated; pairs have names, as grpcio's."""
    sent = (("name", "value"), ("name", "other"), ("blob-bin", bytes(range(256))))
    seen = told(lambda context: context.invocation_metadata(), metadata=sent)
    assert [pair for pair in seen if pair[0] in ("name", "blob-bin")] == list(sent)
    assert {pair.key for pair in seen} == {"name", "blob-bin", "user-agent"}
    assert next(pair.value for pair in seen if pair.key == "user-agent").startswith("grpc-python/")


def test_peer_of_a_plain_connection_is_an_address_without_identity(told):
    """Nothing was proved about it."""
    seen = told(lambda context: (context.peer(), context.peer_identity_key(), context.peer_identities()))
    assert seen[0].startswith("ipv4:127.0.0.1:")
    assert seen[1:] == (None, None)


def test_time_remaining_without_a_deadline_is_none(told):
    """As the interface says."""
    assert told(lambda context: context.time_remaining(), timeout=None) is None


def test_time_remaining_counts_down_from_the_client_s_timeout(told):
    """In seconds; the wire has it in three digits, rounded up."""
    assert WAIT_S / 2 < told(lambda context: context.time_remaining()) < 1.1 * WAIT_S


def test_running_call_is_active(told):
    """And not yet decided."""
    seen = told(lambda context: (context.is_active(), context.code(), context.details(), context.trailing_metadata()))
    assert seen == (True, None, None, None)


# ---- what becomes of the answer


def test_code_details_and_trailing_metadata_reach_the_client(ask):
    """And are known to the handler meanwhile; details in UTF-8, as grpcio keeps them."""
    trailing = (("why", "so"), ("blob-bin", b"\x00\xff"))

    def decide(request, context):
        context.set_code(Code.NOT_FOUND)
        context.set_details("nicht da: ü\n%")
        context.set_trailing_metadata(trailing)
        assert (context.code(), context.details()) == (Code.NOT_FOUND, "nicht da: ü\n%".encode())
        assert context.trailing_metadata() == trailing
        return b""

    call = ask(decide)
    assert (call.code(), call.details()) == (Code.NOT_FOUND, "nicht da: ü\n%")
    assert tuple(call.trailing_metadata()) == trailing


def test_code_that_is_none_of_grpc_s_gives_unknown(ask):
    """As grpcio has it."""
    assert ask(lambda request, context: context.set_code(99) or b"").code() is Code.UNKNOWN


def test_abort_ends_the_call_with_its_status_and_no_line_in_the_log(ask, caplog):
    """It is no failure of the handler."""
    call = ask(lambda request, context: context.abort(Code.FAILED_PRECONDITION, "not now"))
    assert (call.code(), call.details()) == (Code.FAILED_PRECONDITION, "not now")
    assert not caplog.records


def test_abort_with_ok_gives_unknown(ask):
    """An abort never succeeds."""
    call = ask(lambda request, context: context.abort(Code.OK, "fine"))
    assert (call.code(), call.details()) == (Code.UNKNOWN, "")


class Verdict(grpc.Status):
    """A status with metadata."""

    code = Code.DATA_LOSS
    details = "gone"
    trailing_metadata = (("where", "here"),)


def test_abort_with_status_sends_its_metadata(ask):
    """Beside code and text."""
    call = ask(lambda request, context: context.abort_with_status(Verdict()))
    assert (call.code(), call.details(), tuple(call.trailing_metadata())) == (
        Code.DATA_LOSS,
        "gone",
        (("where", "here"),),
    )


def test_abort_in_the_midst_of_a_stream_comes_after_its_replies(serve):
    """Both reach the client."""

    def count(request, context):
        yield b"1"
        context.abort(Code.ABORTED, "enough")

    replies = serve({"Count": grpc.unary_stream_rpc_method_handler(count)}).read("Count")
    assert next(replies) == b"1"
    with refused(Code.ABORTED, "enough"):
        next(replies)


def test_exception_after_set_code_keeps_the_code(ask):
    """The text is the exception's."""

    def fail(request, context):
        context.set_code(Code.INVALID_ARGUMENT)
        raise ValueError("broken")

    call = ask(fail)
    assert (call.code(), call.details()) == (Code.INVALID_ARGUMENT, "Exception calling application: broken")


def test_cancel_breaks_the_call_off(ask):
    """Whatever the handler returns."""

    def cancel(request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        context.cancel()
        assert ended.wait(WAIT_S)
        assert not context.is_active()
        return b""

    assert ask(cancel).code() is Code.CANCELLED


def test_callbacks_come_once_after_the_end_whatever_one_of_them_does(ask, caplog):
    """A callback that fails is logged, the next one still called."""
    called = threading.Semaphore(0)

    def fail():
        raise ValueError("broken callback")

    def register(request, context):
        assert context.add_callback(fail)
        assert context.add_callback(called.release)
        return b""

    assert ask(register).code() is Code.OK
    assert called.acquire(timeout=WAIT_S)
    assert "broken callback" in caplog.text
    assert not called.acquire(timeout=0.1)


# ---- initial metadata


@pytest.mark.parametrize("metadata", [(("greeting", "hello"),), ()])
def test_initial_metadata_arrive_before_the_reply(serve, metadata):
    """At once when they are sent, empty ones too: a client that waits for them goes on."""
    go = threading.Event()

    def greet(request, context):
        context.send_initial_metadata(metadata)
        assert go.wait(WAIT_S)
        yield b"reply"

    replies = serve({"Greet": grpc.unary_stream_rpc_method_handler(greet)}).read("Greet")
    assert tuple(replies.initial_metadata())[: len(metadata)] == metadata
    go.set()
    assert list(replies) == [b"reply"]


def test_initial_metadata_are_sent_once(ask):
    """A second time is an error of the handler."""

    def greet(request, context):
        context.send_initial_metadata(())
        with pytest.raises(ValueError, match="no longer allowed"):
            context.send_initial_metadata(())
        return b""

    assert ask(greet).code() is Code.OK


@pytest.mark.parametrize("pair", [("Upper", "x"), ("grpc-status", "0"), ("key", "line\nbreak"), ("key-bin", "text")])
def test_metadata_that_cannot_be_sent_are_refused_where_they_are_given(ask, pair):
    """The handler hears of it, not the connection."""

    def spoil(request, context):
        for give in (context.send_initial_metadata, context.set_trailing_metadata):
            with pytest.raises(ValueError, match="metadata was invalid"):
                give((pair,))
        return b""

    assert ask(spoil).code() is Code.OK


@pytest.mark.parametrize("give", ["send_initial_metadata", "set_trailing_metadata"])
def test_metadata_larger_than_nghttp2_sends_end_the_call(ask, give):
    """Instead of leaving its client to wait."""

    def exaggerate(request, context):
        getattr(context, give)((("key", "x" * 300_000),))
        return b""

    assert ask(exaggerate).code() is Code.INTERNAL


# ---- compression


@pytest.mark.parametrize("compression", list(grpc.Compression))
@pytest.mark.parametrize("sends_metadata", [False, True])
def test_compressed_replies_are_read_by_the_client(serve, compression, sends_metadata):
    """A message without compression among them."""

    def count(request, context):
        context.set_compression(compression)
        if sends_metadata:
            context.send_initial_metadata((("a", "b"),))
        for number in range(3):
            if number != 1:
                context.disable_next_message_compression()
            yield b"%d" % number * 10_000

    replies = serve({"Count": grpc.unary_stream_rpc_method_handler(count)}).read("Count")
    assert list(replies) == [b"%d" % number * 10_000 for number in range(3)]


def test_server_s_own_compression_holds_for_every_reply(serve):
    """Without a word of the handler's."""
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    service = serve({"Echo": echo}, compression=grpc.Compression.Gzip)
    message = b"x" * 100_000
    assert service.call("Echo", message) == message
    assert service.call("Echo", message, compression=grpc.Compression.Deflate) == message


# ---- contextvars


def test_each_call_has_variables_of_its_own(serve):
    """What a handler leaves in its thread does not reach the next call."""
    variable = contextvars.ContextVar("variable", default=b"unset")

    def swap(request, context):
        before = variable.get()
        variable.set(request)
        return before

    service = serve({"Swap": grpc.unary_unary_rpc_method_handler(swap)}, threads=1)
    assert [service.call("Swap", b"1"), service.call("Swap", b"2")] == [b"unset", b"unset"]
