"""Runs a handler's behaviour in its four shapes, with grpcio's answers to everything that can go wrong in it."""

import logging
from collections.abc import Callable

import grpc

from kernels.grpc_call import CallEndedError, RefusedError, ServerCall
from kernels.grpc_context import ServicerContext
from kernels.grpc_metadata import MetadataError

logger = logging.getLogger(__name__)


def get_behavior(handler: grpc.RpcMethodHandler) -> Callable[..., object]:
    """The one function of a handler."""
    taken = "stream" if handler.request_streaming else "unary"
    given = "stream" if handler.response_streaming else "unary"
    return getattr(handler, f"{taken}_{given}")


def is_non_blocking(handler: grpc.RpcMethodHandler) -> bool:
    """Whether the behaviour returns at once and sends later, by a function that it is given."""
    return handler.response_streaming and getattr(get_behavior(handler), "experimental_non_blocking", False)


def run_call(call: ServerCall, handler: grpc.RpcMethodHandler) -> None:
    """Answer a call with what its handler gives, unless it is over before it has begun; raises nothing."""
    if call.is_active:
        call.variables.run(_Run(call, handler).run)


class _Run:
    """One call on its way through its handler."""

    def __init__(self, call: ServerCall, handler: grpc.RpcMethodHandler):
        self._call = call
        self._handler = handler
        self._behavior = get_behavior(handler)
        # For the message of an exception.
        self._doing = "calling application"

    def run(self) -> None:
        try:
            self._answer()
        except CallEndedError:
            pass  # nobody is left to be told
        except RefusedError as refused:
            self._call.finish(refused.code, refused.text)
        except MetadataError as error:
            logger.error(str(error), exc_info=error)
            self._call.finish(grpc.StatusCode.INTERNAL, str(error))
        except BaseException as error:
            # A handler that ends its thread, by SystemExit say, must not leave its client waiting.
            self._fail(error)

    def _answer(self) -> None:
        request, context = self._take_argument(), ServicerContext(self._call)
        if not self._handler.response_streaming:
            reply = self._encode(self._behavior(request, context))
            self._call.send_without_waiting(reply)
            self._call.finish()
        elif is_non_blocking(self._handler):
            self._behavior(request, context, self._send_later)
        else:
            self._send_all(self._behavior(request, context))

    def _take_argument(self) -> object:
        if self._handler.request_streaming:
            return RequestIterator(self._call, self._handler.request_deserializer)
        return decode_request(self._call.take_request(), self._handler.request_deserializer)

    def _send_all(self, responses: object) -> None:
        self._doing = "iterating responses"
        for response in responses:
            if response is None:
                break
            self._call.send(self._encode(response))
            if not self._call.is_active:
                return
        self._call.finish()

    def _send_later(self, response: object) -> None:
        """Send what a non-blocking behaviour gives, None at its end; from any thread."""
        if response is None:
            self._call.finish()
            return
        try:
            self._call.send_without_waiting(self._encode(response))
        except RefusedError as refused:
            self._call.finish(refused.code, refused.text)

    def _encode(self, response: object) -> bytes:
        serialize = self._handler.response_serializer
        try:
            message = response if serialize is None else serialize(response)
            if isinstance(message, bytes):
                return message
            logger.error("Exception serializing message! It gave %s", type(message).__name__)
        except Exception:
            logger.exception("Exception serializing message!")
        raise RefusedError(grpc.StatusCode.INTERNAL, "Failed to serialize response!")

    def _fail(self, error: BaseException) -> None:
        if self._call.is_aborted:
            self._call.finish(grpc.StatusCode.UNKNOWN, "RPC Aborted")
            return
        try:
            text = f"Exception {self._doing}: {error}"
        except Exception:
            text = "Calling application raised unprintable Exception!"
        logger.error(text, exc_info=error)
        self._call.finish(grpc.StatusCode.UNKNOWN, text)


class RequestIterator:
    """The messages of one call in the handler's own types; ends early when one cannot be read, and the call with it."""

    def __init__(self, call: ServerCall, deserialize: Callable[[bytes], object] | None):
        self._call = call
        self._deserialize = deserialize

    def __iter__(self):
        return self

    def __next__(self) -> object:
        message = self._call.take_request()
        if message is None:
            raise StopIteration
        # The next one comes while the handler works on this one.
        self._call.request_message()
        try:
            return decode_request(message, self._deserialize)
        except RefusedError as refused:
            self._call.finish(refused.code, refused.text)
            raise StopIteration from None


def decode_request(message: bytes, deserialize: Callable[[bytes], object] | None) -> object:
    """A message in the handler's own type; raises RefusedError when it is none."""
    try:
        request = message if deserialize is None else deserialize(message)
        if request is not None:
            return request
        logger.error("Exception deserializing message! It gave nothing")
    except Exception:
        logger.exception("Exception deserializing message!")
    raise RefusedError(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
