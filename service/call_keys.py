"""What a call on grpcio's server says of its idempotency key, and of who sends it."""

import grpc

from kernels.completions import CompletionQueue
from service.headers import CERTIFICATE_HEADER, KEY_HEADER, TOKEN_HEADER
from service.peers import SUBJECT_NAMES

# The key of grpcio's auth context that holds a peer's whole certificate.
CERTIFICATE = "x509_pem_cert"


def has_key(context: grpc.aio.ServicerContext) -> bool:
    """Whether the call has a key at all."""
    return any(name == KEY_HEADER for name, _ in context.invocation_metadata() or ())


def read_key(queue: CompletionQueue, context: grpc.aio.ServicerContext) -> bytes:
    """The digest of a call's key and its caller; empty without one.

    Raises
    ------
    InferError
        There is more than one, or it is not a good one, or no answers are kept.
    """
    if not has_key(context):
        return b""
    return queue.make_key(
        tuple(_values(context, KEY_HEADER)),
        _describe_peer(context),
        b",".join(_values(context, CERTIFICATE_HEADER)),
        b",".join(_values(context, TOKEN_HEADER)),
    )


def _values(context: grpc.aio.ServicerContext, name: str) -> list[bytes]:
    values = [value for key, value in context.invocation_metadata() or () if key == name]
    return [value.encode() if isinstance(value, str) else value for value in values]


def _describe_peer(context: grpc.aio.ServicerContext) -> bytes:
    """The names in the certificate of who is connected, or all of it where there are none; empty without one."""
    proven = context.auth_context()
    return b"\0".join(proven.get(SUBJECT_NAMES) or proven.get(CERTIFICATE) or ())
