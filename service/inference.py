"""ModelInfer on grpcio's asyncio server: raw bytes in, raw bytes out; in between the request is the engine's."""

import asyncio
import logging

import grpc

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from service.headers import REQUEST_ID_HEADER, VERSION_HEADER
from service.logs import LineLimit
from service.status import GRPC_CODES, UNFORESEEN

# A client that makes a model fail again and again must not fill the disk.
FAILURES_LOGGED_PER_SECOND = 10

logger = logging.getLogger(__name__)


class InferenceHandler:
    """Submits messages to the engine and resolves their futures; belongs to the event loop that it is made in."""

    def __init__(self, engine: Engine):
        self._loop = asyncio.get_running_loop()
        self._queue = CompletionQueue(engine)
        self._is_flush_due = False
        self._log_limit = LineLimit(FAILURES_LOGGED_PER_SECOND)
        self._loop.add_reader(self._queue.fileno(), self._settle)

    def close(self) -> None:
        """Take the last completions and stop listening for more."""
        self._loop.remove_reader(self._queue.fileno())
        self._settle()

    def methods(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods as grpcio registers them, without a deserializer: messages stay bytes."""
        return {"ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer)}

    async def infer(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answer one ModelInferRequest; the call's deadline bounds its time in the queue."""
        remaining = context.time_remaining()
        timeout_us = -1 if remaining is None else max(0, int(remaining * 1e6))
        settled = self._loop.create_future()
        call = self._queue.submit(message, settled, read_header(context, VERSION_HEADER), timeout_us)
        if not self._is_flush_due:
            # At the end of this turn of the loop: all that it reads wakes a worker once.
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        try:
            code, reply = await settled
        except asyncio.CancelledError:
            call.cancel()
            raise
        if code == status.OK:
            return reply
        self._log_failure(context, code, reply)
        await context.abort(GRPC_CODES[code], UNFORESEEN if code == status.INTERNAL else reply)

    def _log_failure(self, context: grpc.aio.ServicerContext, code: int, reason: str) -> None:
        """Log what the server is to blame for, within a limit, and at debug level what the caller is."""
        is_ours = code == status.INTERNAL
        if is_ours and not self._log_limit.allows():
            return
        level = logging.ERROR if is_ours else logging.DEBUG
        if logger.isEnabledFor(level):
            request_id = read_header(context, REQUEST_ID_HEADER).decode("ascii", "replace")
            logger.log(level, "request failed", extra={"request_id": request_id, "reason": reason})

    def _flush(self) -> None:
        self._is_flush_due = False
        self._queue.flush()

    def _settle(self) -> None:
        for call, code, reply in self._queue.drain():
            # A cancelled handler no longer waits.
            if not call.context.done():
                call.context.set_result((code, reply))


def read_header(context: grpc.aio.ServicerContext, name: str) -> bytes:
    """The value of a header of the call, empty when it is missing."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value.encode() if isinstance(value, str) else value
    return b""
