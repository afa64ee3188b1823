"""The one thread that hears of calls: finds their handlers, brings them their events, ends them at their deadlines."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from kernels.grpc_behavior import get_behavior, is_non_blocking, run_call
from kernels.grpc_call import ServerCall
from kernels.grpc_deadlines import Deadlines
from kernels.grpc_handlers import HandlerCallDetails, HandlerTable
from kernels.grpc_metadata import Metadatum
from kernels.grpc_pool import BoundedPool
from kernels.permit import Permit
from kernels.server_call import Call, CallInfo
from kernels.transport import ADMIT, CALL, CLOSED, FAILURE, HALF_CLOSE, MESSAGE, STOPPED, WRITABLE, Transport

# How long it takes at most until the end of a server that was dropped without a stop is noticed.
MAX_WAIT_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallOptions:
    """What holds for every call of a server."""

    maximum_concurrent_rpcs: int | None = None
    compression: grpc.Compression | None = None
    # What the caller of a bound method may do, and whether headers say who that is; None: everything, whoever it is.
    admit: Callable[[CallInfo], tuple[Permit, bool]] | None = None


class Dispatcher:
    """Turns the transport's events into calls.

    A call with a single request gets a thread once that has come: a slow sender holds none. Calls that stream have
    threads of their own, so that however many of them leave those of quick calls alone.

    Parameters
    ----------
    unary, streaming
        Threads for calls that cannot last longer than their handler works, and for those whose client decides.
    """

    def __init__(
        self,
        transport: Transport,
        handlers: HandlerTable,
        unary: BoundedPool,
        streaming: BoundedPool,
        options: CallOptions,
    ):
        self._transport = transport
        self._handlers = handlers
        self._unary = unary
        self._streaming = streaming
        self._options = options
        # The transport's calls that run; those of them that wait for their single request; those with a deadline.
        self._calls: dict[Call, ServerCall] = {}
        self._awaiting: dict[Call, grpc.RpcMethodHandler] = {}
        self._deadlines = Deadlines()
        self._is_running = True
        # Set without a lock, by whoever drops the server.
        self.is_abandoned = False
        self.stopped = threading.Event()

    def start(self) -> None:
        """Begin; ends by itself when the transport has stopped."""
        threading.Thread(target=self._run, name="grpc-dispatcher", daemon=True).start()

    def _run(self) -> None:
        try:
            while self._is_running:
                self._turn()
        except BaseException:
            logger.critical("the dispatcher failed; the server ends", exc_info=True)
            self._transport.abort()
        finally:
            self._transport.close()
            self._unary.close()
            self._streaming.close()
            self.stopped.set()

    def _turn(self) -> None:
        timeout_s = self._deadlines.seconds_left(time.monotonic(), MAX_WAIT_S)
        for kind, call, payload in self._transport.wait_events(timeout_s):
            self._react(REACTIONS[kind], call, payload)
        for call in self._deadlines.pop_expired(time.monotonic()):
            self._react(Dispatcher._expire, call, None)
        if self.is_abandoned:
            self.is_abandoned = False
            self._transport.drain()
            self._transport.abort()

    def _react(self, reaction: Callable[..., None], call: Call | None, payload: object) -> None:
        try:
            reaction(self, call, payload)
        except Exception:
            # One call must not take the others with it.
            logger.exception("an event of a call was lost")
            if call is not None:
                call.cancel()

    def _stop(self, _call: None, _payload: None) -> None:
        self._is_running = False

    def _log_failure(self, _call: None, failure: tuple[str, str]) -> None:
        """Log what a bound method's client is not told; the transport bounds how often that is."""
        request_id, reason = failure
        logger.error("request failed", extra={"request_id": request_id, "reason": reason})

    # ---- a call's beginning

    def _accept(self, call: Call, info: CallInfo) -> None:
        served = ServerCall(call, info, self._options.compression)
        handler, code, text = self._find_handler(served)
        if handler is None:
            call.send_status(code.value[0], text, ())
            return
        self._calls[call] = served
        if info.deadline is not None:
            self._deadlines.add(call, info.deadline)
        served.request_message(must_come=not handler.request_streaming)
        if handler.request_streaming:
            self._start(served, handler)
        else:
            self._awaiting[call] = handler

    def _admit(self, call: Call, info: CallInfo) -> None:
        call.admit(*self._options.admit(info))

    def _find_handler(self, served: ServerCall) -> tuple[grpc.RpcMethodHandler | None, grpc.StatusCode, str]:
        """The handler, or None and with which status the call is turned away."""
        details = HandlerCallDetails(served.info.method, tuple(map(Metadatum._make, served.info.metadata)))
        try:
            handler = served.variables.run(self._handlers.find, details)
        except Exception:
            logger.exception("Exception servicing handler")
            return None, grpc.StatusCode.UNKNOWN, "Error in service handler!"
        if handler is None:
            return None, grpc.StatusCode.UNIMPLEMENTED, "Method not found!"
        if len(self._calls) >= (self._options.maximum_concurrent_rpcs or float("inf")):
            return None, grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"
        return handler, grpc.StatusCode.OK, ""

    def _start(self, served: ServerCall, handler: grpc.RpcMethodHandler) -> None:
        own_pool = getattr(get_behavior(handler), "experimental_thread_pool", None)
        if isinstance(own_pool, ThreadPoolExecutor):
            own_pool.submit(run_call, served, handler)
            return
        streams = handler.request_streaming or handler.response_streaming
        pool = self._streaming if streams and not is_non_blocking(handler) else self._unary
        if not pool.submit(run_call, served, handler):
            served.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait for a thread of the server")

    # ---- its further events; none of them concerns a call that was turned away

    def _take_message(self, call: Call, message: bytes) -> None:
        served = self._calls.get(call)
        if served is None:
            return
        served.add_request(message)
        handler = self._awaiting.pop(call, None)
        if handler is not None:
            self._start(served, handler)

    def _take_half_close(self, call: Call, _payload: None) -> None:
        served = self._calls.get(call)
        if served is None:
            return
        served.end_requests()
        if self._awaiting.pop(call, None) is not None:
            text = f'"{served.info.method}" requires exactly one request message.'
            served.finish(grpc.StatusCode.UNIMPLEMENTED, text)

    def _resume(self, call: Call, _payload: None) -> None:
        if served := self._calls.get(call):
            served.resume_sending()

    def _expire(self, call: Call, _payload: None) -> None:
        self._calls[call].expire()

    def _close(self, call: Call, is_complete: bool) -> None:
        self._awaiting.pop(call, None)
        self._deadlines.discard(call)
        if served := self._calls.pop(call, None):
            served.close(is_complete)


REACTIONS = {
    CALL: Dispatcher._accept,
    MESSAGE: Dispatcher._take_message,
    HALF_CLOSE: Dispatcher._take_half_close,
    CLOSED: Dispatcher._close,
    FAILURE: Dispatcher._log_failure,
    WRITABLE: Dispatcher._resume,
    STOPPED: Dispatcher._stop,
    ADMIT: Dispatcher._admit,
}
