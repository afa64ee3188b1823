"""ModelInfer and ModelStreamInfer on grpcio's asyncio server: bytes in and out; in between they are the engine's."""

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from kernels import status
from kernels.blocking_call import InferError
from kernels.completions import STREAM_KEY, CompletionQueue
from kernels.engine import Engine
from kernels.permit import Admission
from kernels.retry_info import encode_status
from service.allocator import release_memory
from service.call_keys import has_key, read_key
from service.guard import Guard
from service.headers import DETAILS_HEADER, FAILURE_HEADER, REPLAY_HEADER, REQUEST_ID_HEADER, VERSION_HEADER
from service.logs import LineLimit
from service.status import GRPC_CODES, UNFORESEEN
from service.stream_replies import encode_stream_failure, encode_stream_reply

# Requests of one stream that are under way or whose replies wait; no more are read until the client takes some.
MAX_STREAM_REQUESTS = 64
# As the native transport has it (kernels/sweep.pyx): messages whose memory is worth giving back to the system, and how
# long after the last of them.
BULKY_BYTES = 32 * 1024 * 1024
TRIM_AFTER_S = 5.0
# A client that makes a model fail again and again must not fill the disk.
FAILURES_LOGGED_PER_SECOND = 10

logger = logging.getLogger(__name__)


class StreamFailedError(Exception):
    """A request failed whose stream is to end with its status: one of kernels.status, and the caller's text."""

    def __init__(self, code: int, text: str):
        super().__init__(code, text)
        self.code = code
        self.text = text


class InferenceHandler:
    """Submits messages to the engine and resolves their futures; belongs to the event loop that it is made in.

    Parameters
    ----------
    guard
        Says what callers may ask for; None where they may ask for everything.
    """

    def __init__(self, engine: Engine, guard: Guard | None = None):
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._queue = CompletionQueue(engine)
        self._is_flush_due = False
        self._log_limit = LineLimit(FAILURES_LOGGED_PER_SECOND)
        self._trim: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._queue.fileno(), self._settle)

    def close(self) -> None:
        """Take the last completions and stop listening for more."""
        self._loop.remove_reader(self._queue.fileno())
        if self._trim is not None:
            self._trim.cancel()
        self._settle()

    def methods(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods as grpcio registers them, without a deserializer: messages stay bytes."""
        return {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.infer_stream),
        }

    async def infer(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answer one ModelInferRequest; the call's deadline bounds its time in the queue."""
        try:
            key = read_key(self._queue, context)
        except InferError as error:
            await context.abort(GRPC_CODES[error.code], error.message)
        code, reply, retry_ns = await self._ask(message, context, self._open_admission(streams=False), key)
        if code == status.OK:
            return reply
        await context.abort(GRPC_CODES[code], reply, describe_retry(GRPC_CODES[code], reply, retry_ns))

    async def infer_stream(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        """Answer ModelInferRequests in their order, however the model is done with them.

        A failure is an answer; where the caller asks for that, it ends the stream.
        """
        if has_key(context):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, STREAM_KEY)
        admission = self._open_admission(streams=True)
        replies: asyncio.Queue[asyncio.Task[bytes | StreamFailedError] | None] = asyncio.Queue(MAX_STREAM_REQUESTS)
        failures: list[StreamFailedError] = []
        try:
            # Cancels what is under way when the stream is, and withdraws it from the engine.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._submit_stream(tasks, messages, context, admission, replies))
                while (reply := await replies.get()) is not None:
                    answer = await reply
                    if isinstance(answer, StreamFailedError):
                        raise answer
                    await context.write(answer)
        except* StreamFailedError as group:
            failures.extend(group.exceptions)
        if failures:
            await context.abort(GRPC_CODES[failures[0].code], failures[0].text)

    async def _submit_stream(
        self,
        tasks: asyncio.TaskGroup,
        messages: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext,
        admission: Admission | None,
        replies: asyncio.Queue[asyncio.Task[bytes | StreamFailedError] | None],
    ) -> None:
        """Submit the messages of a stream as they come, as long as there is place for their replies."""
        async for message in messages:
            await replies.put(tasks.create_task(self._answer_streamed(message, context, admission)))
        await replies.put(None)

    async def _answer_streamed(
        self, message: bytes, context: grpc.aio.ServicerContext, admission: Admission | None
    ) -> bytes | StreamFailedError:
        code, reply, _ = await self._ask(message, context, admission)
        if code == status.OK:
            return encode_stream_reply(reply)
        if read_header(context, FAILURE_HEADER) == b"true":
            return StreamFailedError(code, reply)
        return encode_stream_failure(message, reply)

    def _open_admission(self, *, streams: bool) -> Admission | None:
        return None if self._guard is None else Admission(streams=streams)

    async def _ask(
        self, message: bytes, context: grpc.aio.ServicerContext, admission: Admission | None, key: bytes = b""
    ) -> tuple[int, bytes | str, int]:
        """The engine's code and reply to one message; for a failure, the text that its caller is to see.

        Last comes in how many nanoseconds a refused request may be tried again, 0 when nobody knows.
        """
        if self._guard is not None:
            # For each message: the policy may have changed while a stream was open.
            admission.decide(*self._guard.admit(context.auth_context(), context.invocation_metadata() or ()))
        settled = self._loop.create_future()
        hint = read_header(context, VERSION_HEADER)
        call = self._queue.submit(message, settled, hint, read_timeout_us(context), admission, key)
        if not self._is_flush_due:
            # At the end of this turn of the loop: all that it reads wakes a worker once.
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        try:
            code, reply = await settled
        except asyncio.CancelledError:
            call.cancel()
            raise
        if max(len(message), len(reply)) > BULKY_BYTES:
            self._give_memory_back()
        if code != status.OK:
            self._log_failure(context, code, reply)
        elif call.is_replayed:
            context.set_trailing_metadata(((REPLAY_HEADER, "replayed"),))
        return code, UNFORESEEN if code == status.INTERNAL else reply, call.retry_ns

    def _log_failure(self, context: grpc.aio.ServicerContext, code: int, reason: str) -> None:
        """Log what the server is to blame for, within a limit, and at debug level what the caller is."""
        is_ours = code == status.INTERNAL
        if is_ours and not self._log_limit.allows():
            return
        level = logging.ERROR if is_ours else logging.DEBUG
        if logger.isEnabledFor(level):
            request_id = read_header(context, REQUEST_ID_HEADER).decode("ascii", "replace")
            logger.log(level, "request failed", extra={"request_id": request_id, "reason": reason})

    def _give_memory_back(self) -> None:
        """Have malloc return what it keeps of large messages, once no more of them have come for a while."""
        if self._trim is not None:
            self._trim.cancel()
        self._trim = self._loop.call_later(TRIM_AFTER_S, self._loop.run_in_executor, None, release_memory)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._queue.flush()

    def _settle(self) -> None:
        for call, code, reply in self._queue.drain():
            # A cancelled handler no longer waits.
            if not call.context.done():
                call.context.set_result((code, reply))


def read_timeout_us(context: grpc.aio.ServicerContext) -> int:
    """How long the call has until its deadline; negative without one."""
    remaining = context.time_remaining()
    return -1 if remaining is None else max(0, int(remaining * 1e6))


def describe_retry(code: grpc.StatusCode, text: str, retry_ns: int) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata that says when a refused request may be tried again; none when nobody knows."""
    if retry_ns == 0:
        return ()
    return ((DETAILS_HEADER, encode_status(code.value[0], text.encode(), retry_ns)),)


def read_header(context: grpc.aio.ServicerContext, name: str) -> bytes:
    """The value of a header of the call, empty when it is missing."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value.encode() if isinstance(value, str) else value
    return b""
