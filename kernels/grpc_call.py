"""One running call: what its client has sent, what it is answered, and how it ends."""

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable

import grpc

from kernels.grpc_metadata import Metadatum
from kernels.server_call import HIGH_MARK_BYTES, Call, CallInfo

# What may wait for a client that does not read, of a handler that cannot be told to wait.
MAX_UNREAD_BYTES = 16 * 2**20

logger = logging.getLogger(__name__)


class CallEndedError(grpc.RpcError):
    """The call is over: its client has gone, or its deadline has passed."""


class RefusedError(Exception):
    """The call cannot be answered as its handler meant; carries the status that it gets instead."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code = code
        self.text = text


class ServerCall:
    """A call between the transport's events, which the dispatcher brings, and its handler, in any thread.

    Attributes
    ----------
    variables : contextvars.Context
        That in which interceptors, handler and iterators of the call run.
    code, details, trailing_metadata, is_aborted
        What the handler has chosen for the end of the call; details are bytes, None is unset.
    compression, skips_compression
        That of messages, and whether the next message goes without.
    """

    def __init__(self, call: Call, info: CallInfo, compression: grpc.Compression | None = None):
        self.info = info
        self.variables = contextvars.Context()
        self.code: grpc.StatusCode | None = None
        self.details: bytes | None = None
        self.trailing_metadata: tuple[Metadatum, ...] | None = None
        self.is_aborted = False
        self.compression = compression
        self.skips_compression = False
        self._call = call
        # Over all that follows; notified at every change.
        self._changed = threading.Condition(threading.Lock())
        self._requests: deque[bytes] = deque()
        self._has_all_requests = False
        # None until initial metadata has been sent, then the encoding that they announced.
        self._encoding: int | None = None
        self._resumptions = 0
        self._is_cancelled = False
        self._is_answered = False
        # None once they have been called.
        self._callbacks: list[Callable[[], None]] | None = []

    # ---- what happens to the call; called by the dispatcher

    def add_request(self, message: bytes) -> None:
        """Take one message of the client."""
        with self._changed:
            self._requests.append(message)
            self._changed.notify_all()

    def end_requests(self) -> None:
        """Know that the client sends no more."""
        with self._changed:
            self._has_all_requests = True
            self._changed.notify_all()

    def resume_sending(self) -> None:
        """Let go on who waited for the client to read."""
        with self._changed:
            self._resumptions += 1
            self._changed.notify_all()

    def close(self, is_complete: bool) -> None:
        """Know that the transport is done with the call, and whether the client was sent a status of ours."""
        with self._changed:
            self._is_cancelled = self._is_cancelled or not (is_complete and self._is_answered)
        self._end()

    def expire(self) -> None:
        """End a call whose deadline has passed."""
        with self._changed:
            has_status = self._is_answered
            self._is_cancelled = True
        if has_status:
            # The client has not read it in time, and will not.
            self._call.cancel()
        else:
            self._call.send_status(grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "Deadline Exceeded", ())
        self._end()

    def _end(self) -> None:
        with self._changed:
            callbacks, self._callbacks = self._callbacks, None
            self._changed.notify_all()
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                logger.exception("Exception calling callback!")

    # ---- what the handler does; called from any thread

    @property
    def is_active(self) -> bool:
        """Whether anything that is sent may still arrive."""
        return not self._is_cancelled and not self._is_answered

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call a function once when the call has ended; False when it has."""
        with self._changed:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def request_message(self, *, must_come: bool = False) -> None:
        """Let one more message of the client come; the transport ends a call whose message must come and does not."""
        self._call.request_message(must_come)

    def take_request(self) -> bytes | None:
        """Wait for a message that was requested; None after the last.

        Raises
        ------
        CallEndedError
            The call is over before its client has finished.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._has_all_requests or not self.is_active)
            if self._is_cancelled:
                raise CallEndedError
            return None if self._is_answered or not self._requests else self._requests.popleft()

    def send_initial_metadata(self, metadata: tuple[Metadatum, ...]) -> None:
        """Send metadata before the first message.

        Raises
        ------
        CallEndedError
            Nobody listens any more.
        ValueError
            They have been sent.
        """
        with self._changed:
            if self._is_cancelled:
                raise CallEndedError
            if self._encoding is not None or self._is_answered:
                raise ValueError("Initial metadata no longer allowed!")
            self._encoding = int(self.compression or 0)
            self._call.send_initial_metadata(metadata, self._encoding)

    def send(self, message: bytes) -> None:
        """Send one message, and wait while the client is slow to read; does nothing when the call is over."""
        resumptions = self._resumptions
        if self._send(message) > HIGH_MARK_BYTES:
            with self._changed:
                self._changed.wait_for(lambda: self._resumptions != resumptions or not self.is_active)

    def send_without_waiting(self, message: bytes) -> None:
        """Send one message; a client that has left too much unread before it loses the call."""
        if self._send(message) - len(message) > MAX_UNREAD_BYTES:
            self._call.cancel()

    def _send(self, message: bytes) -> int:
        """Send one message; the bytes that wait for the client then."""
        with self._changed:
            if not self.is_active:
                return 0
            if self._encoding is None:
                self._encoding = int(self.compression or 0)
                if self._encoding:
                    # It must be announced before; without one, the message brings the headers along.
                    self._call.send_initial_metadata((), self._encoding)
            encoding = 0 if self.skips_compression else self._encoding
            self.skips_compression = False
        # Not under the lock, which the dispatcher takes for each event: compressing takes its time.
        return self._call.send_message(message, encoding)

    def finish(self, code: grpc.StatusCode = grpc.StatusCode.OK, text: str = "") -> None:
        """End the call with the status that its handler has chosen, else with this one; the first end counts."""
        with self._changed:
            if not self.is_active:
                return
            self._is_answered = True
            self._changed.notify_all()
        chosen = code if self.code is None else self.code
        details = text if self.details is None else self.details.decode("utf-8", "replace")
        number = (chosen if isinstance(chosen, grpc.StatusCode) else grpc.StatusCode.UNKNOWN).value[0]
        self._call.send_status(number, details, self.trailing_metadata or ())

    def cancel(self) -> None:
        """Break the call off."""
        self._call.cancel()
