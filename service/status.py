"""The one map from what went wrong, in kernels or service, to the gRPC status that a caller sees."""

import functools
import logging
from collections.abc import Callable

import grpc

from kernels import status
from kernels.status import UNFORESEEN

GRPC_CODES = {
    status.OK: grpc.StatusCode.OK,
    status.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    status.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    status.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    status.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    status.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    status.CANCELLED: grpc.StatusCode.CANCELLED,
    status.INTERNAL: grpc.StatusCode.INTERNAL,
    status.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    status.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    status.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
}

logger = logging.getLogger(__name__)


class ServiceError(Exception):
    """An error of the control plane whose text is meant for the caller; `code` is one of kernels.status."""

    code = status.INTERNAL


class InvalidArgumentError(ServiceError):
    """The request itself is wrong, whatever the server holds."""

    code = status.INVALID


class NotFoundError(ServiceError):
    """The request names something that the server does not have."""

    code = status.NOT_FOUND


class UnavailableError(ServiceError):
    """The server has it and cannot serve it now."""

    code = status.UNAVAILABLE


class PermissionDeniedError(ServiceError):
    """The caller may not do that."""

    code = status.FORBIDDEN


class ExhaustedError(ServiceError):
    """The server has as much of it to do as it takes on."""

    code = status.EXHAUSTED


class UnimplementedError(ServiceError):
    """The protocol has it and this server does not."""

    code = status.UNIMPLEMENTED


def describe_error(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Status and text that a caller gets for an error; one that was not foreseen is logged and not shown.

    An error was foreseen when it carries an int `code` of kernels.status, as those of kernels and service do.
    """
    code = getattr(error, "code", None)
    if isinstance(code, int) and code in GRPC_CODES and code != status.INTERNAL:
        return GRPC_CODES[code], str(error)
    logger.error("unforeseen error", exc_info=error)
    return grpc.StatusCode.INTERNAL, UNFORESEEN


def answers(method: Callable[..., object]) -> Callable[..., object]:
    """Turn an error of a servicer's method into the status of its rpc."""

    @functools.wraps(method)
    def answer(self: object, request: object, context: grpc.ServicerContext) -> object:
        try:
            return method(self, request, context)
        except Exception as error:
            code, text = describe_error(error)
        return context.abort(code, text)

    return answer
