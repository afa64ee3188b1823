"""gRPC's server on the native transport: takes what grpcio's takes, and binds hot methods to an engine."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import grpc

from kernels.engine import Engine
from kernels.grpc_dispatcher import CallOptions, Dispatcher
from kernels.grpc_handlers import HandlerTable
from kernels.grpc_pool import BoundedPool
from kernels.limits import Limits
from kernels.permit import Permit
from kernels.server_call import CallInfo
from kernels.tls import TlsSettings
from kernels.transport import Transport

logger = logging.getLogger(__name__)

# Calls of each of the two kinds that wait for a thread.
MAX_QUEUED_CALLS = 1024


class Server(grpc.Server):
    """Serves grpcio's servicers and bound methods; starts once, stops once.

    Parameters
    ----------
    limits
        The transport's; its own defaults without.
    io_threads
        Threads that read and write; 0 chooses by processors.
    spin_us
        How long they look for more before they sleep, in microseconds.
    threads
        Threads for handlers that take one request and give one reply, and for those that do not block.
    stream_threads
        Threads for handlers that stream, each for as long as its client wishes.
    interceptors
        Asked in this order before a handler is chosen, in the thread that hears of all calls: they must not wait.
    maximum_concurrent_rpcs
        Calls of Python handlers that may be open at the same time; one more gets RESOURCE_EXHAUSTED.
    compression
        That of replies, unless a handler chooses another.
    admit
        Says what the caller of a bound method may do, and whether a gateway speaks for him by headers; asked on first
        sight of a caller, in the thread that hears of all calls. Without it, everybody may use bound methods.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        io_threads: int = 0,
        spin_us: int = 0,
        threads: int = 4,
        stream_threads: int = 4,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
        maximum_concurrent_rpcs: int | None = None,
        compression: grpc.Compression | None = None,
        admit: Callable[[CallInfo], tuple[Permit, bool]] | None = None,
    ):
        self._transport = Transport(limits or Limits(), io_threads=io_threads, spin_us=spin_us)
        if admit is not None:
            self._transport.ask_permits()
        self._handlers = HandlerTable(interceptors)
        self._dispatcher = Dispatcher(
            self._transport,
            self._handlers,
            BoundedPool(threads, MAX_QUEUED_CALLS, "grpc-unary"),
            BoundedPool(stream_threads, MAX_QUEUED_CALLS, "grpc-stream"),
            CallOptions(maximum_concurrent_rpcs, compression, admit),
        )
        self._lock = threading.Lock()
        self._is_started = False
        self._is_draining = False

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these handlers for methods that are not registered."""
        self._handlers.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Register the methods of one service; too late after the start, which the log says."""
        if self._is_started:
            logger.warning("Cannot register method handlers once server has started: %s", service_name)
            return
        self._handlers.add_registered(service_name, method_handlers)

    def bind(
        self, path: str, engine: Engine, *, version_header: str, request_id_header: str = "", streaming: bool = False
    ) -> None:
        """Have a method, such as "/package.Service/Method", answered by an engine, without Python.

        Parameters
        ----------
        version_header
            Metadata that names the model version of a request that names none.
        request_id_header
            Metadata whose value is logged with what the server itself is to blame for.
        streaming
            Whether requests and replies are streams.
        """
        self._transport.bind(
            path, engine, version_header=version_header, request_id_header=request_id_header, streaming=streaming
        )

    def forget_permits(self) -> None:
        """Ask `admit` again for every caller, once it would answer otherwise than before."""
        self._transport.forget_permits()

    def add_insecure_port(self, address: str) -> int:
        """Listen in plain text; return the port. "host:port", "[v6]:port" or "unix:path"; RuntimeError if it cannot."""
        return self._listen(address, None)

    def add_secure_port(self, address: str, server_credentials: TlsSettings) -> int:
        """Listen with TLS; return the port.

        Raises
        ------
        RuntimeError
            The address cannot be had.
        TypeError
            The credentials are grpcio's, which nobody else can read.
        """
        if not isinstance(server_credentials, TlsSettings):
            given = type(server_credentials).__name__
            raise TypeError(f"add_secure_port takes kernels.tls.TlsSettings, given {given}, which cannot be read")
        return self._listen(address, server_credentials)

    def _listen(self, address: str, tls: TlsSettings | None) -> int:
        try:
            return self._transport.listen(address, tls)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"cannot listen on {address}: {error}") from error

    def traffic(self) -> dict[str, int]:
        """Connections, calls and bytes of this moment and since the start, as Transport's statistics and traffic."""
        return self._transport.statistics() | self._transport.traffic()

    def replace_tls(self, tls: TlsSettings) -> None:
        """Use other certificates from now on; connections of clients that they no longer trust are closed."""
        self._transport.replace_tls(tls)

    def start(self) -> None:
        """Take calls; raises ValueError when the server has been started or stopped."""
        with self._lock:
            if self._is_started or self._is_draining:
                raise ValueError("Cannot start already-started server!")
            self._transport.start()
            self._dispatcher.start()
            self._is_started = True

    def stop(self, grace: float | None) -> threading.Event:
        """Take no more calls and, after `grace` seconds, cancel those that still run; at once, and waiting, for None.

        Returns
        -------
        threading.Event
            Set when no call is left and the port is closed.
        """
        stopped = self._dispatcher.stopped
        with self._lock:
            if not self._is_draining:
                self._is_draining = True
                self._begin_stop()
        if grace is None:
            self._transport.abort()
            stopped.wait()
        elif not stopped.is_set():
            threading.Thread(
                target=_abort_after, args=(grace, stopped, self._transport), name="grpc-grace", daemon=True
            ).start()
        return stopped

    def _begin_stop(self) -> None:
        if self._is_started:
            self._transport.drain()
        else:
            self._transport.close()
            self._dispatcher.stopped.set()

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; True when `timeout` seconds have passed before."""
        return not self._dispatcher.stopped.wait(timeout)

    def __del__(self):
        # No lock may be taken here; the dispatcher, which does not keep the server alive, does the rest.
        if hasattr(self, "_dispatcher"):
            self._dispatcher.is_abandoned = True


def _abort_after(grace: float, stopped: threading.Event, transport: Transport) -> None:
    if not stopped.wait(grace):
        transport.abort()
