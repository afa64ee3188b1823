"""What a server is given before it starts: handlers, services and ports."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from tests.conformance.interop_service import add_interop_service, pb, rpc
from tests.conformance.probe import METHOD, PATH, SERVICE, TIMEOUT_S
from tests.conformance.running_server import add_port, running_server
from tests.end_to_end.targets import Target
from tests.free_ports import HOST, find_free_port


@pytest.fixture
def start(kind):
    """Starts a server with what `register(server)` adds; returns it and a channel to it."""
    with ExitStack() as stack:

        def start_server(register):
            server, address = stack.enter_context(running_server(kind, register))
            return server, stack.enter_context(Target(address).connect())

        yield start_server


@pytest.fixture
def unstarted(kind):
    """A server that has not been started."""
    with ThreadPoolExecutor(1) as pool:
        server = kind.make(pool)
        yield server
        server.stop(None)


def answering(response):
    """Handlers, by the method's name, whose answer is always the same."""
    return {METHOD: grpc.unary_unary_rpc_method_handler(lambda request, context: response)}


def generic(response):
    """The same for `add_generic_rpc_handlers`."""
    return [grpc.method_handlers_generic_handler(SERVICE, answering(response))]


def call(channel, **options):
    """The answer of the method."""
    return channel.unary_unary(PATH)(b"", timeout=TIMEOUT_S, **options)


def test_registered_handlers_are_called(start):
    """They alone are enough."""
    _, channel = start(lambda server: server.add_registered_method_handlers(SERVICE, answering(b"registered")))
    assert call(channel) == b"registered"


def test_registered_handlers_come_before_generic_ones(start):
    """Generated code adds both."""

    def register(server):
        server.add_generic_rpc_handlers(generic(b"generic"))
        server.add_registered_method_handlers(SERVICE, answering(b"registered"))

    _, channel = start(register)
    assert call(channel) == b"registered"


def test_registered_handlers_of_a_second_registration_replace_the_first(start):
    """For the same method."""

    def register(server):
        server.add_registered_method_handlers(SERVICE, answering(b"first"))
        server.add_registered_method_handlers(f"{SERVICE}.Other", answering(b"other"))
        server.add_registered_method_handlers(SERVICE, answering(b"second"))

    _, channel = start(register)
    assert call(channel) == b"second"


def test_generic_handlers_are_asked_in_order(start):
    """The first that has the method is called."""

    def register(server):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("sluice.testing.Nobody", {})])
        server.add_generic_rpc_handlers(generic(b"first"))
        server.add_generic_rpc_handlers(generic(b"second"))

    _, channel = start(register)
    assert call(channel) == b"first"


def test_generic_handler_is_told_what_is_called(start):
    """The method's full name and the metadata."""
    asked = []

    class Onlooker(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            asked.append((handler_call_details.method, ("key", "value") in handler_call_details.invocation_metadata))
            return answering(b"seen")[METHOD]

    _, channel = start(lambda server: server.add_generic_rpc_handlers([Onlooker()]))
    assert call(channel, metadata=[("key", "value")]) == b"seen"
    assert asked == [(PATH, True)]


def test_generic_handler_that_fails_is_unknown(start):
    """The client is told as much."""

    class Failing(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            raise ValueError("boom")

    _, channel = start(lambda server: server.add_generic_rpc_handlers([Failing()]))
    with pytest.raises(grpc.RpcError) as raised:
        call(channel)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNKNOWN, "Error in service handler!")


def test_generic_handler_added_after_the_start_is_called(start):
    """From then on."""
    server, channel = start(lambda server: None)
    with pytest.raises(grpc.RpcError) as raised:
        call(channel)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    server.add_generic_rpc_handlers(generic(b"late"))
    assert call(channel) == b"late"


def test_registered_handlers_added_after_the_start_are_left_out(start, caplog):
    """With a warning in the log."""
    server, channel = start(lambda server: None)
    with caplog.at_level(logging.WARNING):
        server.add_registered_method_handlers(SERVICE, answering(b"late"))
    assert "Cannot register method handlers once server has started" in caplog.text
    with pytest.raises(grpc.RpcError) as raised:
        call(channel)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_is_no_generic_handler_is_refused(unstarted):
    """At once, not when it is called."""
    with pytest.raises(AttributeError, match="service"):
        unstarted.add_generic_rpc_handlers([object()])


def test_services_of_others_are_served_beside_ours(start):
    """Health, its streaming watch too, and reflection, as their packages register them."""
    watched = health.HealthServicer()

    def register(server):
        add_interop_service(server)
        health_pb2_grpc.add_HealthServicer_to_server(watched, server)
        reflection.enable_server_reflection(["grpc.testing.TestService"], server)

    _, channel = start(register)
    assert rpc.TestServiceStub(channel).EmptyCall(pb.Empty(), timeout=TIMEOUT_S) == pb.Empty()
    updates = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="x"), timeout=TIMEOUT_S)
    assert next(updates).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.set("x", health_pb2.HealthCheckResponse.SERVING)
    assert next(updates).status == health_pb2.HealthCheckResponse.SERVING
    updates.cancel()
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask, timeout=TIMEOUT_S)
    assert [service.name for service in answer.list_services_response.service] == ["grpc.testing.TestService"]


def test_ports_in_plain_text_and_with_tls_are_served_by_one_server(kind, identity, certificates):
    """Each call is answered on its own."""
    ports = []

    def register(server):
        server.add_generic_rpc_handlers(generic(b"answer"))
        ports.append(add_port(server, kind, identity))

    with running_server(kind, register) as (_, address):
        guarded = Target(f"{HOST}:{ports[0]}", certificates / "internal-ca.pem")
        for target in (Target(address), guarded):
            with target.connect() as channel:
                assert call(channel) == b"answer"


def test_port_that_is_named_is_the_one(kind, unstarted):
    """The server tells the port that it has."""
    port = find_free_port()
    assert add_port(unstarted, kind, address=f"{HOST}:{port}") == port


def test_port_that_is_taken_is_an_error(kind, unstarted, start):
    """Told when it is added."""
    server, _ = start(lambda server: None)
    port = add_port(unstarted, kind)
    with pytest.raises(RuntimeError, match=f"{HOST}:{port}"):
        add_port(server, kind, address=f"{HOST}:{port}")


def test_start_of_a_server_that_has_started_is_an_error(start):
    """It goes on as it is."""
    server, channel = start(lambda server: server.add_generic_rpc_handlers(generic(b"answer")))
    with pytest.raises(ValueError, match="start"):
        server.start()
    assert call(channel) == b"answer"
