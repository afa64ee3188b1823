"""A native server under attack: what it must still be able to do afterwards, and what it must have given back."""

import os
import threading
import time

import grpc
import numpy as np
from inference_messages import decode_reply, encode_request

from kernels.grpc_server import Server
from tests.attacks.bystander import Bystander
from tests.raw_http2 import RawConnection

SERVICE = "inference.GRPCInferenceService"
METHODS = {"ModelInfer": False, "ModelStreamInfer": True}
INFER_PATH, STREAM_PATH = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"
ECHO_PATH, POUR_PATH = "/test.Raw/Echo", "/test.Raw/Pour"
RECOVERY_TIMEOUT_S = 30.0
POLL_S = 0.01


class AttackedServer:
    """A server of an engine, with one I/O thread, so that attackers and their bystander meet on it.

    Parameters
    ----------
    limits
        kernels.limits.Limits.
    tls, trust
        TlsSettings of a port with TLS, which is then the only one, and the ssl.SSLContext of its clients.
    """

    def __init__(self, engine, limits, tls=None, trust=None):
        self._trust = trust
        self._server = Server(limits, io_threads=1)
        for name, streaming in METHODS.items():
            self._server.bind(f"/{SERVICE}/{name}", engine, version_header="model-version", streaming=streaming)
        echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        pour = grpc.unary_stream_rpc_method_handler(_pour)
        self._server.add_registered_method_handlers("test.Raw", {"Echo": echo, "Pour": pour})
        place = "127.0.0.1:0"
        port = self._server.add_secure_port(place, tls) if tls else self._server.add_insecure_port(place)
        self.address = f"127.0.0.1:{port}"
        before = set(list_threads())
        self._server.start()
        self._threads = set(list_threads()) - before
        self.bystander = None

    def watch(self, credentials=None, *, retries=False):
        """Have a bystander call from now on."""
        self.bystander = Bystander(self.address, credentials, retries=retries)
        self.bystander.await_calls()

    @property
    def connections(self):
        """How many there are."""
        return self._server._transport.statistics()["connections"]

    @property
    def buffered_bytes(self):
        """Of messages that are being received or sent."""
        return self._server._transport.statistics()["buffered_bytes"]

    def await_connections(self, count, timeout_s=RECOVERY_TIMEOUT_S):
        """Return when there are so many, and nothing of theirs is buffered if it is the bystander's alone."""
        self.await_state(lambda: self.connections == count, timeout_s)

    def await_state(self, is_reached, timeout_s=RECOVERY_TIMEOUT_S):
        """Return when a condition holds."""
        until = time.monotonic() + timeout_s
        while not is_reached():
            assert time.monotonic() < until, self._server._transport.statistics()
            threading.Event().wait(POLL_S)

    def processor_s(self):
        """Processor time that its threads have used, but for those of Python's handlers."""
        return sum(map(read_processor_s, self._threads))

    def connect(self, **options):
        """A raw connection."""
        return RawConnection(self.address, **options)

    def check(self):
        """Serve a client that comes now, have everything back, and have had a bystander who noticed nothing."""
        check_service(self.address, self._trust)
        if self.bystander:
            self.bystander.await_calls()
            self.bystander.close()
            assert self.bystander.failures == []
        self.await_state(lambda: (self.connections, self.buffered_bytes) == (0, 0))

    def close(self):
        """End, whatever is open."""
        if self.bystander:
            self.bystander.close()
        self._server.stop(None)


def list_threads():
    """The kernel's numbers of this process's threads."""
    return map(int, os.listdir("/proc/self/task"))


def read_processor_s(thread):
    """Processor time that a thread has used."""
    with open(f"/proc/self/task/{thread}/schedstat") as schedule:
        return int(schedule.read().split()[0]) / 1e9


def _pour(request, context):
    """Reply with as many messages of 64 KiB as the request says."""
    for _ in range(int(request)):
        yield bytes(65536)


def small_request(rows=1):
    """A request of 16 numbers a row, and its reply is known by `check_reply`."""
    return encode_request("identity", {"input": np.zeros((rows, 4), np.float32)})


def large_reply_request(count=16384):
    """A request of a few bytes whose reply has four times `count` bytes."""
    return encode_request("expander", {"input": np.array([count], np.int64)})


def check_reply(message, rows=1):
    """Whether it answers `small_request`."""
    np.testing.assert_array_equal(decode_reply(message)["output"], np.zeros((rows, 4), np.float32))


def check_service(address, trust=None):
    """Have a connection of its own answered."""
    with RawConnection(address, tls=trust) as connection:
        reply = connection.await_reply(connection.send_call(small_request()))
        assert reply.status == 0
        check_reply(reply.message)
