"""Who may call each method of each service: refuses peers without an allowed name, and what no policy allows."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping

import grpc

from service.permissions import Permissions

# The key of grpcio's auth context that holds a peer's names, URI names among them.
SUBJECT_NAMES = "x509_subject_alternative_name"
REFUSAL = "this server takes calls from its gateway only: no name in the caller's certificate is an allowed one"
# The attribute by which grpcio knows a method that returns at once and sends later.
NON_BLOCKING = "experimental_non_blocking"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

# Why a call with a request, or with its requests, is refused; empty when it is not.
Refuse = Callable[[object, grpc.ServicerContext], str]


class GuardedServer:
    """Takes what generated ``add_…_to_server`` functions register and puts the check of the peer in front of it.

    Parameters
    ----------
    server
        The server to register with.
    allowed
        URI names of which a peer's certificate must carry one; empty lets everybody in.
    permissions
        What callers may do, where a policy says so.
    """

    def __init__(
        self, server: grpc.Server | grpc.aio.Server, allowed: Collection[str], permissions: Permissions | None = None
    ):
        self._server = server
        self._permissions = permissions
        self._allowed = frozenset(name.encode() for name in allowed)

    def add_generic_rpc_handlers(self, handlers: Collection[grpc.GenericRpcHandler]) -> None:
        """Do nothing: the same methods come as registered ones, which are the quicker to find."""

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Register the methods of one service; a later registration of a method replaces an earlier one."""
        guarded = {method: self._guard(f"/{service_name}/{method}", handler) for method, handler in handlers.items()}
        self._server.add_registered_method_handlers(service_name, guarded)

    def _guard(self, path: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        reasons = self._list_reasons(path)
        if not reasons:
            return handler
        kind = next(kind for kind in KINDS if getattr(handler, kind))
        method = guard_method(getattr(handler, kind), reasons, streams=kind.endswith("_stream"))
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(method, handler.request_deserializer, handler.response_serializer)

    def _list_reasons(self, path: str) -> list[Refuse]:
        """Why a call of a method may be refused."""
        reasons: list[Refuse] = []
        if self._allowed:
            reasons.append(functools.partial(refuse_stranger, self._allowed))
        if self._permissions is not None and self._permissions.has_policy:
            reasons.append(functools.partial(self._permissions.refuse_call, path))
        return reasons


def guard_method(method: Callable[..., object], reasons: Collection[Refuse], *, streams: bool) -> Callable[..., object]:
    """Return a method of the same kind (coroutine or not, streaming or not, blocking or not) that checks its caller."""

    def refuse(request: object, context: grpc.ServicerContext) -> str:
        return next((text for reason in reasons if (text := reason(request, context))), "")

    if inspect.isasyncgenfunction(method):

        async def checked(request, context):
            if text := refuse(request, context):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            async for reply in method(request, context):
                yield reply

    elif inspect.iscoroutinefunction(method):

        async def checked(request, context):
            if text := refuse(request, context):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            return await method(request, context)

    elif getattr(method, NON_BLOCKING, False):

        def checked(request, context, send):
            if text := refuse(request, context):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            method(request, context, send)

        setattr(checked, NON_BLOCKING, True)

    elif streams:

        def checked(request, context):
            if text := refuse(request, context):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            yield from method(request, context)

    else:

        def checked(request, context):
            if text := refuse(request, context):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            return method(request, context)

    return functools.update_wrapper(checked, method, assigned=("__doc__",), updated=())


def refuse_stranger(allowed: frozenset[bytes], request: object, context: grpc.ServicerContext) -> str:
    """Refuse a peer whose certificate, verified by the handshake, carries no allowed name."""
    return REFUSAL if allowed.isdisjoint(context.auth_context().get(SUBJECT_NAMES, ())) else ""
