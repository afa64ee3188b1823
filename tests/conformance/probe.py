"""One method of a test's own on a server of its own, and a client's way to it."""

import grpc

from tests.conformance.running_server import THREADS, running_server
from tests.end_to_end.targets import Target

SERVICE = "sluice.testing.Probe"
METHOD = "Call"
PATH = f"/{SERVICE}/{METHOD}"
# Long enough that only what hangs meets it.
TIMEOUT_S = 30.0


class Probe:
    """A server whose only method is a behaviour in one of the four shapes; leaving it as a context stops it.

    Messages are bytes, unless the handler is given what makes them something else.

    Parameters
    ----------
    shape
        As grpcio calls it, `unary_stream` for one.
    behaviour
        What a servicer's method would be: it takes the request, or their iterator, and the context.
    handler_options
        `request_deserializer` and `response_serializer`.
    """

    def __init__(self, kind, shape, behaviour, *, threads=THREADS, identity=None, **handler_options):
        self.shape = shape
        self._handler = getattr(grpc, f"{shape}_rpc_method_handler")(behaviour, **handler_options)
        self._running = running_server(kind, self._register, identity=identity, threads=threads)
        self._channels = []

    def _register(self, server):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: self._handler})])

    def __enter__(self):
        self.server, self.address = self._running.__enter__()
        return self

    def __exit__(self, *failure):
        self.close_channels()
        return self._running.__exit__(*failure)

    def close_channels(self):
        """Hang up on every connection."""
        for channel in self._channels:
            channel.close()

    def open_channel(self, address=None, **certificates):
        """A connection of its own, by way of another address if there is one; certificates are Target's."""
        channel = Target(address or self.address, **certificates).connect()
        self._channels.append(channel)
        return channel

    def connect(self, address=None, **certificates):
        """The method, as grpcio's multi-callable, over a connection of its own."""
        return getattr(self.open_channel(address, **certificates), self.shape)(PATH)
