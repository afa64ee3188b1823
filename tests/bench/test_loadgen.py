"""bench.loadgen: its counts beside h2load's, its percentiles beside known delays, its failures, its handshakes."""

import asyncio
import itertools
import shutil
import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bench import h2load
from bench.h2load import write_frame
from bench.loadgen import Credentials, keep_idle, run_calls, run_handshakes
from bench.processes import BenchError, read_cpu_ns
from bench.servers import run_floor
from certs import ensure_certificates
from tests.http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS

pytestmark = pytest.mark.usefixtures("native_programs")

MESSAGE = b"m" * 91
DELAY_S = 0.05
DELAYED = itertools.count()
# A late answer takes so many delays.
SLOW = 10
# A delay on a machine that is busy is shorter than so many.
SLACK = 5
RST_STREAM, INTERNAL_ERROR = 0x3, 0x2
# As header blocks: their places in HPACK's static table.
HTTP_200, HTTP_404 = b"\x88", b"\x8d"


async def echo(message, context):
    """Answer with the message."""
    return message


async def delay(message, context):
    """Answer after a known time."""
    await asyncio.sleep(DELAY_S)
    return message


async def delay_some(message, context):
    """Answer every tenth call late."""
    await asyncio.sleep(DELAY_S * (SLOW if next(DELAYED) % 10 == 9 else 1))
    return message


async def refuse(message, context):
    """Fail every call."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as always")


async def hang(message, context):
    """Answer nothing in the time that a test has."""
    await asyncio.sleep(3600)


BEHAVIOURS = {"Echo": echo, "Delay": delay, "DelaySome": delay_some, "Refuse": refuse, "Hang": hang}


@contextmanager
def serving(credentials=None):
    """A grpcio server with each behaviour under its name, in a thread of its own; yields its port."""
    started, ports = threading.Event(), []

    async def serve():
        server = grpc.aio.server()
        handlers = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in BEHAVIOURS.items()}
        server.add_registered_method_handlers("test.Test", handlers)
        address = "127.0.0.1:0"
        ports.append(server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address))
        await server.start()
        stop = asyncio.Event()
        ports.append((asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30)
    port, (loop, stop) = ports
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def http2_frame(kind, flags, payload, stream=1):
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@contextmanager
def misbehaving(answer):
    """A server of one connection, which greets it and answers the first call with `answer`; yields its port."""

    def serve():
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as received:
            received.read(len(PREFACE))
            connection.sendall(http2_frame(SETTINGS, 0, b"", stream=0))
            is_asked = False
            while not is_asked:
                head = received.read(9)
                received.read(int.from_bytes(head[:3], "big"))
                is_asked = head[3] == DATA and head[4] & END_STREAM
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


@pytest.fixture(scope="module")
def port():
    """Of a server in plain text."""
    with serving() as found:
        yield found


@pytest.fixture
def frame(tmp_path):
    """A small message."""
    return write_frame(tmp_path / "frame", MESSAGE)


def run(port, frame, behaviour, **options):
    """Calls of one behaviour."""
    return run_calls(port, frame, path=f"/test.Test/{behaviour}", **{"connections": 1, "time_limit_s": 20, **options})


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is missing: apt-get install nghttp2-client")
@pytest.mark.parametrize("size", [0, 91, 600_000])
def test_counts_of_a_closed_loop_are_those_of_h2load(size, tmp_path):
    """As many calls answered, as many bytes of replies, from the same server."""
    frame = write_frame(tmp_path / "frame", b"x" * size)
    with run_floor(tmp_path) as floor:
        theirs = h2load.run_load(floor.port, frame, clients=2, streams=4, requests=200, reply_bytes=size)
        ours = run_calls(floor.port, frame, connections=2, streams=4, requests=200)
    assert (ours.requests, ours.reply_bytes) == (theirs.requests, theirs.reply_bytes)
    assert (ours.succeeded, ours.failed, ours.unsent) == (200, 0, 0)
    assert ours.latency_us["count"] == 200


def test_empty_floor_answers_with_an_empty_message(tmp_path, frame):
    """Whatever it was sent."""
    with run_floor(tmp_path, is_empty=True) as floor:
        assert floor.call(MESSAGE) == b""
        assert run_calls(floor.port, frame, connections=1, requests=10).reply_bytes == 50


def test_floor_answers_grpcio_with_its_own_bytes(tmp_path):
    """A client that is not ours understands it."""
    with run_floor(tmp_path) as floor:
        assert floor.call(MESSAGE) == MESSAGE


def test_latency_of_a_closed_loop_is_the_server_delay(port, frame):
    """And, one call after another, all latencies together are the time that it took."""
    found = run(port, frame, "Delay", requests=20)
    latency_us = found.latency_us
    assert DELAY_S * 1e6 <= latency_us["min"] <= latency_us["p50"] <= DELAY_S * SLACK * 1e6
    assert latency_us["p50"] <= latency_us["p90"] <= latency_us["p99"] <= latency_us["p999"] <= latency_us["max"]
    assert latency_us["mean"] * 20 == pytest.approx(found.seconds * 1e6, rel=0.01)


def test_percentiles_tell_the_slow_tenth_from_the_rest(port, frame):
    """Nine of ten below, one of ten above."""
    latency_us = run(port, frame, "DelaySome", streams=5, requests=100).latency_us
    assert DELAY_S * 1e6 <= latency_us["p50"] <= latency_us["p90"] <= DELAY_S * SLACK * 1e6
    assert SLOW * DELAY_S * 1e6 <= latency_us["p99"] <= SLOW * DELAY_S * SLACK * 1e6
    assert latency_us["mean"] >= (0.9 + 0.1 * SLOW) * DELAY_S * 1e6


def test_latency_at_a_rate_begins_when_the_call_was_due(port, frame):
    """One call at a time, due twice as often as answered: the last waits for half of all before it."""
    calls, interval_s = 20, DELAY_S / 2
    found = run(port, frame, "Delay", requests=calls, rate=1 / interval_s)
    assert found.succeeded == calls
    last_us = (found.seconds - (calls - 1) * interval_s) * 1e6
    assert (calls + 1) * interval_s * 1e6 <= last_us <= found.latency_us["max"] * 1.001
    # The tenth of them: ten delays less the nine intervals after which it was due.
    assert found.latency_us["p50"] >= (10 * DELAY_S - 9 * interval_s) * 1e6
    assert found.lateness_us["max"] <= found.latency_us["max"] - DELAY_S * 1e6


def test_rate_that_the_server_follows_is_kept(port, frame):
    """With latencies of single calls: none waits for another."""
    found = run(port, frame, "Delay", connections=4, streams=8, rate=100, duration_s=0.5)
    assert found.requests == found.succeeded == 50
    assert found.seconds >= 0.49 + DELAY_S
    assert DELAY_S * 1e6 <= found.latency_us["p50"] <= DELAY_S * SLACK * 1e6


def test_duration_ends_a_closed_loop(port, frame):
    """What was begun is answered still."""
    found = run(port, frame, "Delay", streams=2, duration_s=0.2)
    assert 2 <= found.requests == found.succeeded <= 2 * (0.2 / DELAY_S + 1)
    assert found.seconds >= 0.2


@pytest.mark.parametrize(
    ("behaviour", "kind", "options"),
    [
        ("Refuse", "status", {}),
        ("Unknown", "status", {}),
        ("Hang", "unanswered", {"time_limit_s": 0.5, "streams": 8}),
        # The server ends the call by its deadline, with a status or a reset.
        ("Hang", "status", {"headers": ["grpc-timeout: 100m"]}),
    ],
)
def test_call_without_a_good_answer_is_a_failure_of_its_kind(port, frame, behaviour, kind, options):
    """None counts as a success, or among the latencies."""
    found = run(port, frame, behaviour, requests=8, **options)
    assert found.failed == found.failures[kind] == 8, found
    assert found.succeeded == found.latency_us["count"] == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http2_frame(HEADERS, END_HEADERS | END_STREAM, HTTP_200), "trailers"),
        (http2_frame(HEADERS, END_HEADERS | END_STREAM, HTTP_404), "http"),
        (http2_frame(RST_STREAM, 0, struct.pack(">I", INTERNAL_ERROR)), "reset"),
        (b"", "connection"),
    ],
)
def test_call_that_is_cut_off_is_a_failure_of_its_kind(frame, answer, kind):
    """By a server that knows nothing of gRPC, by a reset of its stream, by the connection's end."""
    with misbehaving(answer) as port:
        found = run_calls(port, frame, connections=1, requests=1, time_limit_s=10)
    assert (found.succeeded, found.failed, found.failures[kind]) == (0, 1, 1), found


def test_calls_of_few_in_flight_take_the_connections_in_turn(tmp_path, frame):
    """More connections than calls at a time."""
    with run_floor(tmp_path) as floor:
        found = run_calls(floor.port, frame, connections=50, in_flight=3, requests=200)
    assert found.succeeded == 200


def test_cpu_time_is_that_of_the_calls_alone(tmp_path, frame):
    """The server's own clock, without what connecting took."""
    with run_floor(tmp_path) as floor:
        before = read_cpu_ns(floor.pid)
        found = run_calls(floor.port, frame, connections=200, in_flight=10, requests=2_000, cpu_of=floor.pid)
        assert 0 < found.cpu_seconds < (read_cpu_ns(floor.pid) - before) / 1e9
        assert run_calls(floor.port, frame, connections=1, requests=1).cpu_seconds == 0


def test_connections_can_be_kept_idle(tmp_path):
    """As many as were asked for, until they are no longer needed."""
    with run_floor(tmp_path) as floor:
        descriptors = Path(f"/proc/{floor.pid}/fd")
        before = len(list(descriptors.iterdir()))
        with keep_idle(floor.port, connections=20):
            assert len(list(descriptors.iterdir())) == before + 20


def test_server_that_is_not_there_is_an_error(frame):
    """No figures of nothing."""
    with pytest.raises(BenchError, match="cannot connect"):
        run_calls(1, frame, connections=1, requests=1)


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server that asks for a certificate: its port, and what to call it with."""
    folder = tmp_path_factory.mktemp("certs")
    ensure_certificates(folder)
    pair = ((folder / "service.key").read_bytes(), (folder / "service.pem").read_bytes())
    authority = (folder / "internal-ca.pem").read_bytes()
    with serving(grpc.ssl_server_credentials([pair], authority, require_client_auth=True)) as found:
        identity = folder / "gateway-upstream"
        yield found, Credentials(folder / "internal-ca.pem", identity.with_suffix(".pem"), identity.with_suffix(".key"))


def test_calls_go_over_mtls(secure, frame):
    """With the client's certificate."""
    port, credentials = secure
    found = run(port, frame, "Echo", connections=2, streams=4, requests=100, credentials=credentials)
    assert found.succeeded == 100
    assert found.reply_bytes == 100 * (len(MESSAGE) + 5)


def test_certificate_of_another_authority_is_refused(secure, frame):
    """The generator checks the server, and the server it."""
    port, credentials = secure
    folder = credentials.authority.parent
    stranger = Credentials(credentials.authority, folder / "client.pem", folder / "client.key")
    with pytest.raises(BenchError, match="cannot connect"):
        run(port, frame, "Echo", requests=1, credentials=stranger)
    wrong_name = Credentials(credentials.authority, credentials.certificate, credentials.key, "elsewhere")
    with pytest.raises(BenchError, match="cannot connect"):
        run(port, frame, "Echo", requests=1, credentials=wrong_name)


@pytest.mark.parametrize("is_resuming", [False, True])
def test_handshakes_are_counted(secure, is_resuming):
    """Those that took up a session are known."""
    port, credentials = secure
    found = run_handshakes(port, handshakes=12, connections=2, credentials=credentials, is_resuming=is_resuming)
    assert (found.succeeded, found.failed) == (12, 0)
    assert found.latency_us["count"] == 12
    assert found.resumed == 0 or is_resuming
