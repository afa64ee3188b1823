"""Who may call: refuses every peer whose certificate carries no allowed name, for each method of each service."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping

import grpc

# The key of grpcio's auth context that holds a peer's names, URI names among them.
SUBJECT_NAMES = "x509_subject_alternative_name"
REFUSAL = "this server takes calls from its gateway only: no name in the caller's certificate is an allowed one"
# The attribute by which grpcio knows a method that returns at once and sends later.
NON_BLOCKING = "experimental_non_blocking"
# Where calls come from that began on this machine, in gRPC's words; and what a gateway adds to those that it passes on.
LOCAL_PEERS = ("unix:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")
FORWARDED_HEADERS = frozenset({"x-forwarded-for", "forwarded", "x-forwarded-proto"})
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class GuardedServer:
    """Takes what generated ``add_…_to_server`` functions register and puts the check of the peer in front of it.

    Parameters
    ----------
    server
        The server to register with.
    allowed
        URI names of which a peer's certificate must carry one; empty lets everybody in.
    """

    def __init__(self, server: grpc.Server | grpc.aio.Server, allowed: Collection[str]):
        self._server = server
        self._allowed = frozenset(name.encode() for name in allowed)

    def add_generic_rpc_handlers(self, handlers: Collection[grpc.GenericRpcHandler]) -> None:
        """Do nothing: the same methods come as registered ones, which are the quicker to find."""

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Register the methods of one service; a later registration of a method replaces an earlier one."""
        guarded = {method: self._guard(handler) for method, handler in handlers.items()}
        self._server.add_registered_method_handlers(service_name, guarded)

    def _guard(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        if not self._allowed:
            return handler
        kind = next(kind for kind in KINDS if getattr(handler, kind))
        method = guard_method(getattr(handler, kind), self._allowed, streams=kind.endswith("_stream"))
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(method, handler.request_deserializer, handler.response_serializer)


def guard_method(method: Callable[..., object], allowed: frozenset[bytes], *, streams: bool) -> Callable[..., object]:
    """Return a method of the same kind (coroutine or not, streaming or not, blocking or not) that checks its caller."""
    if inspect.isasyncgenfunction(method):

        async def checked(request, context):
            if not _is_allowed(context, allowed):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
            async for reply in method(request, context):
                yield reply

    elif inspect.iscoroutinefunction(method):

        async def checked(request, context):
            if not _is_allowed(context, allowed):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
            return await method(request, context)

    elif getattr(method, NON_BLOCKING, False):

        def checked(request, context, send):
            if not _is_allowed(context, allowed):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
            method(request, context, send)

        setattr(checked, NON_BLOCKING, True)

    elif streams:

        def checked(request, context):
            if not _is_allowed(context, allowed):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
            yield from method(request, context)

    else:

        def checked(request, context):
            if not _is_allowed(context, allowed):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
            return method(request, context)

    return functools.update_wrapper(checked, method, assigned=("__doc__",), updated=())


def is_local(context: grpc.ServicerContext) -> bool:
    """Tell whether a call comes from this machine, and from nobody behind a gateway on it."""
    is_forwarded = any(name in FORWARDED_HEADERS for name, _ in context.invocation_metadata() or ())
    return context.peer().startswith(LOCAL_PEERS) and not is_forwarded


def _is_allowed(context: grpc.ServicerContext, allowed: frozenset[bytes]) -> bool:
    """Tell whether the peer's certificate, verified by the handshake, carries an allowed name."""
    return not allowed.isdisjoint(context.auth_context().get(SUBJECT_NAMES, ()))
