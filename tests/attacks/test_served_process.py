"""`sluice serve` itself under attack: its flags hold, its memory comes back, and it outlives a lack of descriptors."""

import contextlib
import gzip
import os
import resource
import threading
import time

import onnx_models
import pytest

from service.allocator import KEPT_BYTES
from tests.attacks.attacked_server import check_service, large_reply_request
from tests.attacks.bystander import Bystander
from tests.end_to_end.models import expander
from tests.end_to_end.server_process import ServerProcess
from tests.http2_frames import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    encode_frame,
    encode_header,
    encode_indexed_header,
    encode_message,
    encode_reset,
)
from tests.raw_http2 import RawConnection, connect, encode_request

MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")
SHORT_S = 1.0
MEMORY_TIMEOUT_S = 60.0
SLACK_BYTES = 24 * MIB  # what models and Python's side came to use meanwhile


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """What the in-process servers have too."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(onnx_models.identity(), folder, "identity")
    onnx_models.save(expander(), folder, "expander", config="max_batch_size: 0")
    return folder


@pytest.fixture
def serve(repository):
    """Start a server with flags; another client calls it meanwhile, and both are well at the end."""
    with contextlib.ExitStack() as stack:
        started = []

        def start(*flags):
            process = ServerProcess(repository, "--insecure", "--transport", "native", *flags)
            server = stack.enter_context(process)
            bystander = Bystander(server.address)
            stack.callback(bystander.close)
            bystander.await_calls()
            started.append((server, bystander))
            return server, bystander

        yield start
        for server, bystander in started:
            check_service(server.address)
            bystander.await_calls()
            bystander.close()
            assert bystander.failures == []


def read_processor_s(server):
    """Processor time that the process has used."""
    with open(f"/proc/{server.pid}/stat") as status:
        fields = status.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def count_descriptors(server):
    """How many files it has open."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def test_limits_given_as_flags_hold(serve):
    """One of time and one of number."""
    server, _ = serve("--handshake-timeout", SHORT_S, "--max-connections", 5, "--max-header-bytes", 2000)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(RawConnection(server.address, greets=False)) for _ in range(4)]
        with RawConnection(server.address, greets=False) as refused:
            assert refused.await_end() == []
        for connection in silent:
            assert [frame.kind for frame in connection.await_end()] == [SETTINGS, WINDOW_UPDATE]
    with RawConnection(server.address) as connection:
        assert connection.await_reply(connection.open_call(x="v" * 3000)).status == 8


def test_descriptors_that_run_out_are_survived(serve):
    """Nobody new can come for a while; the processor rests, those who are there are served, and then others come."""
    server, bystander = serve()
    bystander.await_calls()
    limit = count_descriptors(server) + 20
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(server.address))
        bystander.await_calls(50)
        assert count_descriptors(server) == limit
        with bystander.resting():
            used_s = -read_processor_s(server)
            threading.Event().wait(1.0)
            used_s += read_processor_s(server)
        assert used_s < 0.2
        bystander.await_calls()
    check_service(server.address)


def half_send(connection):
    """Messages of which a half never comes."""
    for _ in range(40):
        connection.send_data(connection.open_call(), encode_message(bytes(MIB // 16), size=MIB))


def inflate(connection):
    """Messages of a thousand times their size, of calls that do not end."""
    content = encode_message(gzip.compress(bytes(4 * MIB)), is_compressed=True)
    for _ in range(20):
        connection.send_data(connection.open_call(grpc_encoding="gzip"), content)


def leave_replies(connection):
    """Replies that nobody takes."""
    for _ in range(100):
        connection.send_call(large_reply_request())


def reset_rapidly(connection):
    """Calls of Python's methods that are over at once, with all the metadata that is allowed."""
    block = encode_request(_path="/nowhere") + encode_header("x", "v" * 15_000)
    connection.flood(encode_frame(HEADERS, END_HEADERS, n, block) + encode_reset(n) for n in range(1, 2000, 2))


def unfold_headers(connection):
    """Header blocks that stand for far more."""
    block = encode_request() + encode_indexed_header("x", "v" * 4000) + b"\xbe" * 10_000
    connection.flood(encode_frame(HEADERS, END_HEADERS, n, block) for n in range(1, 100, 2))


def never_end_headers(connection):
    """A block in seven frames that is not the last."""
    stream = connection.open_call(flags=0)
    for _ in range(7):
        connection.send_frame(CONTINUATION, 0, stream, bytes(16_000))


def ping(connection):
    """Pings whose answers are not read."""
    connection.flood([encode_frame(PING, payload=bytes(8)) * 2000] * 10)


ABUSES = [half_send, inflate, leave_replies, reset_rapidly, unfold_headers, never_end_headers, ping]


def test_memory_of_thousands_of_abusive_connections_comes_back(serve):
    """What they held together is given back to the system, some seconds later, but for what the allocator keeps."""
    server, bystander = serve("--max-connection-bytes", 64 * MIB)
    before = server.read_memory_bytes()
    abuse_all(server, bystander, rounds=8)
    await_memory(server, before + KEPT_BYTES + SLACK_BYTES)
    bystander.await_calls()


def await_memory(server, limit):
    """Return when the server's resident size is not above a limit."""
    until = time.monotonic() + MEMORY_TIMEOUT_S
    while server.read_memory_bytes() > limit:
        assert time.monotonic() < until, f"{server.read_memory_bytes() / MIB} MiB, expected {limit / MIB}"
        threading.Event().wait(0.1)


def abuse_all(server, bystander, rounds):
    """Every abuse at the same time, and then connections that vanish before their answer."""
    for number in range(rounds):
        with contextlib.ExitStack() as stack:
            for abuse in ABUSES * 2:
                window = LARGEST_WINDOW if number % 2 else 0
                connection = stack.enter_context(RawConnection(server.address, window=window))
                with contextlib.suppress(ConnectionError):
                    abuse(connection)
        for _ in range(250):
            with RawConnection(server.address) as connection:
                connection.send_call(large_reply_request(1000))
                connection.reset()
        bystander.await_calls(10)
