"""The lookup of handlers by method, with generic handlers and interceptors."""

import grpc
import pytest

from kernels.grpc_handlers import HandlerCallDetails, HandlerTable


def named(name):
    """A handler that can be told from others."""
    return grpc.unary_unary_rpc_method_handler(name)


class Generic(grpc.GenericRpcHandler):
    """Answers the methods of a dict."""

    def __init__(self, handlers):
        self._handlers = handlers

    def service(self, handler_call_details):
        """As grpcio asks."""
        return self._handlers.get(handler_call_details.method)


def find(table, method):
    """The name of the handler that is found."""
    handler = table.find(HandlerCallDetails(method, ()))
    return handler and handler.unary_unary


def test_find_takes_registered_handlers_then_generic_ones_in_order():
    """The first that has an answer; a later registration replaces an earlier one."""
    table = HandlerTable()
    table.add_generic([Generic({}), Generic({"/s/A": named("generic A"), "/s/C": named("generic C")})])
    table.add_generic([Generic({"/s/C": named("late C"), "/s/D": named("late D")})])
    table.add_registered("s", {"A": named("old A"), "B": named("B")})
    table.add_registered("s", {"A": named("A")})
    assert [find(table, f"/s/{name}") for name in "ABCDE"] == ["A", "B", "generic C", "late D", None]


def test_generic_handler_without_service_is_refused():
    """At once, not at a call."""
    with pytest.raises(AttributeError, match="service"):
        HandlerTable().add_generic([object()])


def test_interceptors_may_change_the_method_that_is_looked_up():
    """As they may answer or refuse."""

    class Redirect(grpc.ServerInterceptor):
        def intercept_service(self, continuation, handler_call_details):
            return continuation(handler_call_details._replace(method="/s/B"))

    table = HandlerTable([Redirect()])
    table.add_registered("s", {"A": named("A"), "B": named("B")})
    assert find(table, "/s/A") == "B"
