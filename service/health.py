"""grpc.health.v1: the server, each model and each model version, in step with the repository and with draining."""

import asyncio
import threading
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.repository import ModelVersion, State

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthBoard:
    """What is healthy now: "" for the server, "<model>" and "<model>/<version>"; safe to use from any thread.

    The server is healthy from mark_ready() until drain(), whatever becomes of single models. A model is healthy when
    any of its versions is.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._is_ready = False
        self._is_draining = False
        self._versions: dict[str, dict[int | None, bool]] = {}
        # In the order of their subscription; a dict, because thousands of watchers may leave at once.
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def is_draining(self) -> bool:
        """Whether drain() was called."""
        return self._is_draining

    @property
    def is_serving(self) -> bool:
        """Whether the server takes requests."""
        return self._is_ready and not self._is_draining

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change, in the thread that made it."""
        with self._lock:
            self._listeners[listener] = None

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """End what subscribe began."""
        with self._lock:
            del self._listeners[listener]

    def mark_ready(self) -> None:
        """Say that the server takes requests from now on."""
        self._is_ready = True
        self._notify()

    def drain(self) -> None:
        """Say that the server and all its models take no further requests; there is no way back."""
        self._is_draining = True
        self._notify()

    def update(self, entry: ModelVersion) -> None:
        """Take over the state of one version; made to be subscribed to the repository."""
        with self._lock:
            versions = self._versions.setdefault(entry.name, {})
            versions[entry.version] = entry.state is State.READY
            if entry.state is State.REMOVED:
                del versions[entry.version]
            if not versions:
                del self._versions[entry.name]
        self._notify()

    def read(self, service: str) -> int | None:
        """The ServingStatus of a service; None for one that is not known."""
        is_healthy = self._read_model(service) if service else self._is_ready
        if is_healthy is None:
            return None
        return SERVING if is_healthy and not self._is_draining else NOT_SERVING

    def _read_model(self, service: str) -> bool | None:
        name, _, version = service.partition("/")
        with self._lock:
            versions = self._versions.get(name)
            if versions is None:
                return None
            if service == name:
                return any(versions.values())
            return next((healthy for number, healthy in versions.items() if number and str(number) == version), None)

    def _notify(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The board on a server of synchronous servicers that honours `experimental_non_blocking`.

    A Watch holds no thread, and ends once it has told of the drain.
    """

    def __init__(self, board: HealthBoard):
        self._board = board

    def Check(self, request, context):  # noqa: N802 - the protocol's name
        """Answer with the status of one service, or NOT_FOUND."""
        status = self._board.read(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    def Watch(self, request, context, send):  # noqa: N802
        """Answer with the status of one service now and at every change; SERVICE_UNKNOWN until it is known."""
        watcher = _Watcher(self._board, request.service, send)
        self._board.subscribe(watcher.tell)
        if not context.add_callback(watcher.close):
            watcher.close()
        watcher.tell()

    Watch.experimental_non_blocking = True


class _Watcher:
    """One Watch; tells of a change in the thread that made it."""

    def __init__(self, board: HealthBoard, service: str, send: Callable[[object], None]):
        self._board = board
        self._service = service
        self._send = send
        self._lock = threading.Lock()
        self._last: int | None = None
        self._is_over = False

    def tell(self) -> None:
        """Send the status if it has changed; None, which ends the stream, after that of the drain."""
        with self._lock:
            if self._is_over:
                return
            # Before the status: what is sent as the last one must be that of the drain.
            self._is_over = self._board.is_draining
            status = read_watched(self._board, self._service)
            if status != self._last:
                self._send(health_pb2.HealthCheckResponse(status=status))
            self._last = status
            if self._is_over:
                self._send(None)

    def close(self) -> None:
        """Leave the board."""
        self._board.unsubscribe(self.tell)


def read_watched(board: HealthBoard, service: str) -> int:
    """The status that a watcher is sent."""
    status = board.read(service)
    return SERVICE_UNKNOWN if status is None else status


class AsyncHealthServicer(health_pb2_grpc.HealthServicer):
    """The board on grpcio's asyncio server; made inside the running loop.

    A synchronous Watch holds a thread for as long as its client listens, and one that goes on while the server drains
    uses up the time that requests have to finish. This one holds no thread, and ends once it has told of the drain.
    """

    def __init__(self, board: HealthBoard):
        self._board = board
        self._loop = asyncio.get_running_loop()
        # Set at the next change, and then replaced by a fresh one.
        self._changed = asyncio.Event()
        board.subscribe(self._wake_from_any_thread)

    def close(self) -> None:
        """Stop listening to the board; must come before the loop closes."""
        self._board.unsubscribe(self._wake_from_any_thread)

    async def Check(self, request, context):  # noqa: N802 - the protocol's name
        """Answer with the status of one service, or NOT_FOUND."""
        status = self._board.read(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request, context):  # noqa: N802 - the protocol's name
        """Answer with the status of one service now and at every change; SERVICE_UNKNOWN until it is known."""
        last = None
        while True:
            # Taken before reading, so that a change in between is not missed.
            changed = self._changed
            is_last = self._board.is_draining
            status = read_watched(self._board, request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            if is_last:
                return
            last = status
            await changed.wait()

    def _wake_from_any_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
