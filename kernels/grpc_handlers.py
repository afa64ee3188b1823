"""Finds who answers a call: registered methods first, then generic handlers, interceptors before both."""

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence

import grpc


class HandlerCallDetails(namedtuple("HandlerCallDetails", "method invocation_metadata"), grpc.HandlerCallDetails):
    """What generic handlers and interceptors may decide by."""


class HandlerTable:
    """The handlers of one server, as grpcio looks them up."""

    def __init__(self, interceptors: Sequence[grpc.ServerInterceptor] = ()):
        self._interceptors = tuple(interceptors)
        self._registered: dict[str, grpc.RpcMethodHandler] = {}
        self._generic: tuple[grpc.GenericRpcHandler, ...] = ()

    def add_generic(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these after those that came before.

        Raises
        ------
        AttributeError
            One has no method `service`.
        """
        handlers = tuple(handlers)
        for handler in handlers:
            if not hasattr(handler, "service"):
                raise AttributeError(f'"{handler}" must be a grpc.GenericRpcHandler, but has no method "service"')
        self._generic += handlers

    def add_registered(self, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Add the methods of one service; a later registration of a method replaces an earlier one."""
        self._registered.update({f"/{service_name}/{method}": handler for method, handler in handlers.items()})

    def find(self, details: HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a call, None when there is none; raises what an interceptor or a generic handler raises."""
        return self._intercept(details, 0)

    def _intercept(self, details: grpc.HandlerCallDetails, position: int) -> grpc.RpcMethodHandler | None:
        if position == len(self._interceptors):
            return self._look_up(details)
        proceed = lambda changed: self._intercept(changed, position + 1)  # noqa: E731
        return self._interceptors[position].intercept_service(proceed, details)

    def _look_up(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        registered = self._registered.get(details.method)
        if registered is not None:
            return registered
        answers = (generic.service(details) for generic in self._generic)
        return next((handler for handler in answers if handler is not None), None)
