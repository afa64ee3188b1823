"""Reflection: a client without proto files finds every service and message, by both names of the protocol."""

import os
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from service import health, metadata, reflection
from service.reflection import add_reflection
from tests.aio_server import running_server

NAMES = (metadata.SERVICE_NAME, health.SERVICE_NAME)
GRPCURL = shutil.which("grpcurl", path=os.environ["PATH"] + os.pathsep + str(Path.home() / "go" / "bin"))


@pytest.fixture
def address():
    """A server that has nothing but reflection."""
    with running_server(lambda server: add_reflection(server, NAMES, asynchronous=True)) as running:
        yield running.address


def ask(address, service, **request):
    """One question to reflection under one of its names."""
    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(
            f"/{service}/{reflection.METHOD}",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        return next(method(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=30))


both_names = pytest.mark.parametrize("service", [reflection.V1ALPHA_NAME, reflection.V1_NAME])


@both_names
def test_list_services_names_them_all(address, service):
    """The services of the server, and reflection by both names."""
    answer = ask(address, service, list_services="").list_services_response
    assert {one.name for one in answer.service} == {*NAMES, reflection.V1ALPHA_NAME, reflection.V1_NAME}


@both_names
@pytest.mark.parametrize("symbol", [*NAMES, reflection.V1ALPHA_NAME, reflection.V1_NAME, "inference.ModelConfig"])
def test_file_containing_symbol_can_be_built_from_the_answer_alone(address, service, symbol):
    """A client that knows nothing gets every file that it needs, each before those that use it."""
    answer = ask(address, service, file_containing_symbol=symbol).file_descriptor_response
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in answer.file_descriptor_proto]
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(files):
        pool.Add(file)
    assert pool.FindFileContainingSymbol(symbol)


@both_names
def test_unknown_symbol_is_not_found(address, service):
    """Also one that the process knows and does not serve."""
    for symbol in ("inference.Nothing", "google.protobuf.Any"):
        answer = ask(address, service, file_containing_symbol=symbol)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")
def test_grpcurl_lists_and_describes_without_proto_files(address):
    """The tool that people have at hand works as it is."""

    def grpcurl(*arguments):
        command = [GRPCURL, "-plaintext", address, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    assert set(grpcurl("list").split()) == {*NAMES, reflection.V1ALPHA_NAME, reflection.V1_NAME}
    assert "rpc ModelInfer ( .inference.ModelInferRequest )" in grpcurl("describe", metadata.SERVICE_NAME)
    assert "repeated bytes raw_input_contents = 7;" in grpcurl("describe", "inference.ModelInferRequest")
    assert "is a service" in grpcurl("describe")


@both_names
def test_file_containing_method_is_that_of_its_service(address, service):
    """A method is a symbol too."""
    answers = [
        ask(address, service, file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
        for symbol in (f"{metadata.SERVICE_NAME}.ModelInfer", metadata.SERVICE_NAME)
    ]
    assert answers[0] == answers[1] != []


@both_names
def test_file_containing_unknown_method_is_not_found(address, service):
    """A service's name does not make every method of it exist."""
    answer = ask(address, service, file_containing_symbol=f"{metadata.SERVICE_NAME}.ModelGuess")
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
