"""A gRPC service whose messages are plain bytes, on the native server, and a client of it."""

import contextlib

import grpc

from kernels.grpc_server import Server

SERVICE = "test.Raw"
WAIT_S = 30


class RawService:
    """A running server and a channel to it.

    Parameters
    ----------
    handlers
        Method name to handler.
    options
        Those of kernels.grpc_server.Server.
    """

    def __init__(self, handlers, **options):
        self.server = Server(**options)
        self.server.add_registered_method_handlers(SERVICE, handlers)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        self.channel = self.connect()

    def connect(self, **options):
        """One more channel, on a connection of its own."""
        chosen = {"grpc.use_local_subchannel_pool": 1, "grpc.enable_retries": 0, **options}
        return grpc.insecure_channel(self.address, list(chosen.items()))

    def close(self):
        """Cancel what runs, and end."""
        self.channel.close()
        self.server.stop(None)

    def call(self, method, request=b"", *, timeout=WAIT_S, **options):
        """One request, one reply."""
        return self.channel.unary_unary(path(method))(request, timeout=timeout, **options)

    def start(self, method, request=b"", *, timeout=WAIT_S, **options):
        """The same, as a future."""
        return self.channel.unary_unary(path(method)).future(request, timeout=timeout, **options)

    def read(self, method, request=b"", *, timeout=WAIT_S, **options):
        """One request, a stream of replies."""
        return self.channel.unary_stream(path(method))(request, timeout=timeout, **options)

    def write(self, method, requests, *, timeout=WAIT_S, **options):
        """A stream of requests, one reply."""
        return self.channel.stream_unary(path(method))(iter(requests), timeout=timeout, **options)

    def talk(self, method, requests, *, timeout=WAIT_S, **options):
        """Streams both ways."""
        return self.channel.stream_stream(path(method))(iter(requests), timeout=timeout, **options)


def path(method):
    """A method's full name."""
    return f"/{SERVICE}/{method}"


@contextlib.contextmanager
def refused(code, text=None):
    """Expect a call to fail with a status; gives the error."""
    failed = []
    try:
        yield failed
    except grpc.RpcError as error:
        failed.append(error)
    assert failed, f"the call did not fail with {code}"
    assert (failed[0].code(), text) == (code, failed[0].details() if text is not None else None)
