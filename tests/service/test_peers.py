"""The check of the caller, in front of every kind of method."""

import asyncio
import functools
from types import SimpleNamespace

import grpc
import pytest

from service.peers import REFUSAL, SUBJECT_NAMES, GuardedServer, guard_method, refuse_stranger

ALLOWED = frozenset({b"spiffe://example.org/gateway"})
REASONS = [functools.partial(refuse_stranger, ALLOWED)]


class RefusedError(Exception):
    """What abort raises."""


def make_context(*names):
    """A context of a peer with these names."""

    def abort(code, text):
        assert (code, text) == (grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
        raise RefusedError

    return SimpleNamespace(auth_context=lambda: {SUBJECT_NAMES: list(names)} if names else {}, abort=abort)


FRIEND = make_context(b"spiffe://example.org/other", *ALLOWED)
STRANGERS = (make_context(), make_context(b"spiffe://example.org/other"))


def call_unary(context):
    """A method with one reply."""
    return guard_method(lambda request, context: [request], REASONS, streams=False)("asked", context)


def call_stream(context):
    """A method with a stream of replies."""

    def stream(request, context):
        yield request

    return list(guard_method(stream, REASONS, streams=True)("asked", context))


def call_non_blocking(context):
    """A method that sends its replies, whose mark the check keeps."""

    def send_one(request, context, send):
        send(request)

    send_one.experimental_non_blocking = True
    guarded, sent = guard_method(send_one, REASONS, streams=True), []
    assert guarded.experimental_non_blocking
    guarded("asked", context, sent.append)
    return sent


@pytest.mark.parametrize("call", [call_unary, call_stream, call_non_blocking])
def test_method_answers_who_carries_an_allowed_name_and_nobody_else(call):
    """One name of several is enough."""
    assert call(FRIEND) == ["asked"]
    for stranger in STRANGERS:
        with pytest.raises(RefusedError):
            call(stranger)


def make_async_context(context):
    """The same for coroutines."""

    async def abort(code, text):
        context.abort(code, text)

    return SimpleNamespace(auth_context=context.auth_context, abort=abort)


async def call_coroutine(context):
    """A coroutine with one reply."""

    async def answer(request, context):
        return [request]

    return await guard_method(answer, REASONS, streams=False)("asked", context)


async def call_async_stream(context):
    """An asynchronous generator."""

    async def stream(request, context):
        yield request

    return [reply async for reply in guard_method(stream, REASONS, streams=True)("asked", context)]


@pytest.mark.parametrize("call", [call_coroutine, call_async_stream])
def test_coroutine_answers_who_carries_an_allowed_name_and_nobody_else(call):
    """As its synchronous twin."""
    assert asyncio.run(call(make_async_context(FRIEND))) == ["asked"]
    for stranger in STRANGERS:
        with pytest.raises(RefusedError):
            asyncio.run(call(make_async_context(stranger)))


def test_server_without_allowed_names_takes_handlers_as_they_are():
    """There is nothing to check."""
    taken = {}
    server = SimpleNamespace(add_registered_method_handlers=lambda name, handlers: taken.update(handlers))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    GuardedServer(server, ()).add_registered_method_handlers("service", {"Method": handler})
    assert taken == {"Method": handler}
