"""What a servicer is told about its call, and tells the call: grpc.ServicerContext over the native transport."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import grpc

from kernels.grpc_call import ServerCall
from kernels.grpc_metadata import Metadatum, check_metadata

# In the order in which gRPC takes a peer's identity from them.
IDENTITY_KEYS = ("x509_subject_alternative_name", "x509_common_name")

logger = logging.getLogger(__name__)


class AbortError(Exception):
    """The handler has ended its call; nothing else is to be learnt from it."""


class ServicerContext(grpc.ServicerContext):
    """The context of one call; every method may be called from any thread."""

    def __init__(self, call: ServerCall):
        self._call = call

    # ---- the client

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """The metadata that the client has sent."""
        return tuple(map(Metadatum._make, self._call.info.metadata))

    def peer(self) -> str:
        """The client's address, such as "ipv4:127.0.0.1:50123"."""
        return self._call.info.peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the handshake has proved about the client."""
        return self._call.info.auth

    def peer_identity_key(self) -> str | None:
        """Which property of auth_context identifies the client; None for one that has shown no certificate."""
        auth = self._call.info.auth
        return next((key for key in IDENTITY_KEYS if key in auth), None)

    def peer_identities(self) -> Sequence[bytes] | None:
        """The values of that property."""
        key = self.peer_identity_key()
        return None if key is None else self._call.info.auth[key]

    # ---- the call

    def is_active(self) -> bool:
        """Whether the client still waits."""
        return self._call.is_active

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, 0 when it has passed; None when there is none."""
        deadline = self._call.info.deadline
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call a function, which must not wait for anything, once when the call ends; False when it has ended."""
        return self._call.add_callback(callback)

    def cancel(self) -> None:
        """Break the call off."""
        self._call.cancel()

    # ---- the answer

    def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send metadata at once; raises ValueError when some are wrong or have been sent."""
        self._call.send_initial_metadata(check_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Choose the metadata that go with the status; raises ValueError when some are wrong."""
        self._call.trailing_metadata = check_metadata(trailing_metadata)

    def trailing_metadata(self) -> tuple[Metadatum, ...] | None:
        """The metadata that were chosen."""
        return self._call.trailing_metadata

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress messages, if the client takes it; has no effect after initial metadata have been sent."""
        self._call.compression = compression

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._call.skips_compression = True

    def set_code(self, code: grpc.StatusCode) -> None:
        """Choose the status code."""
        self._call.code = code

    def code(self) -> grpc.StatusCode | None:
        """The code that was chosen."""
        return self._call.code

    def set_details(self, details: str | bytes) -> None:
        """Choose the status text."""
        self._call.details = _encode(details)

    def details(self) -> bytes | None:
        """The text that was chosen, in UTF-8, as grpcio gives it."""
        return self._call.details

    def abort(self, code: grpc.StatusCode, details: str | bytes) -> NoReturn:
        """End the call with a status that is not OK, by an exception that the handler lets pass."""
        if code == grpc.StatusCode.OK:
            logger.error("abort() called with StatusCode.OK; returning UNKNOWN")
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._call.details = _encode(details)
        self._call.code = code
        self._call.is_aborted = True
        raise AbortError

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """As abort, with the status's code, text and trailing metadata."""
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)


def _encode(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
