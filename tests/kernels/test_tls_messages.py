"""Messages over TLS: of many records, both ways, many at a time, and every byte is what was sent."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from tests.kernels.raw_service import WAIT_S, path
from tests.kernels.tls_service import ECHO, call

SIZES = [0, 1, 16_384, 65_536, 600_000, 8 * 2**20]
UNBOUNDED = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
HANDLERS = ECHO | {
    "Talk": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
}


@pytest.fixture
def service(serve_tls, authority):
    """A server that echoes, on two I/O threads."""
    return serve_tls(HANDLERS, client_ca=authority.pem, io_threads=2)


def make_message(size, seed=0):
    """Bytes that differ from place to place and from message to message."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


@pytest.mark.parametrize("size", SIZES)
def test_message_of_any_size_comes_back_as_it_was(service, member, size):
    """From one record to hundreds."""
    message = make_message(size)
    with service.connect(member, **UNBOUNDED) as channel:
        assert [call(channel, message) == message for _ in range(2)] == [True, True]


def test_messages_of_many_calls_at_a_time_are_not_mixed_up(service, member):
    """On one connection."""
    messages = [make_message(size, seed) for seed, size in enumerate([65_536, 600_000, 3, 100_000] * 12)]
    with service.connect(member, **UNBOUNDED) as channel, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda message: call(channel, message) == message, messages)) == [True] * len(messages)


def test_messages_of_many_connections_are_not_mixed_up(service, member):
    """Each with keys of its own."""

    def talk(seed):
        message = make_message(300_000, seed)
        return all(service.call(member, message) == message for _ in range(2))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(talk, range(16)))


def test_messages_of_a_stream_go_both_ways_at_once(service, member):
    """Writing does not wait for reading."""
    messages = [make_message(600_000, seed) for seed in range(20)]
    with service.connect(member, **UNBOUNDED) as channel:
        replies = channel.stream_stream(path("Talk"))(iter(messages), timeout=2 * WAIT_S)
        assert [reply == message for reply, message in zip(replies, messages, strict=True)] == [True] * 20


def test_reader_that_stops_for_a_while_gets_every_byte(service, member):
    """The server keeps half-written records meanwhile, and serves others."""
    messages = [make_message(2**20, seed) for seed in range(8)]
    with service.connect(member, **UNBOUNDED) as channel:
        replies = channel.stream_stream(path("Talk"))(iter(messages), timeout=2 * WAIT_S)
        assert next(replies) == messages[0]
        for seed in range(20):
            assert service.call(member, make_message(1000, seed)) == make_message(1000, seed)
        assert [reply == message for reply, message in zip(replies, messages[1:], strict=True)] == [True] * 7
