"""Clients with generated stubs, in plain text, over mutual TLS and through the gateway."""

import asyncio

import grpc
import numpy as np
import pytest
from datatypes import DTYPES
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference_messages import build_request, read_raw

from kernels.reference import CARRIERS
from service.metadata import METHODS, UNSERVED
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request
from tests.end_to_end.models import ELEMENT_TYPES, OFFSET

TIMEOUT_S = 30.0
STRINGS = [[b"", b"\0", b"a\0b\0\0", b"\xff\xfe"], [b"plain", "é".encode(), b"\0" * 100, b"x" * 70_000]]


def make_values(datatype):
    """Two rows of four elements, the largest and the smallest among them."""
    if datatype == "BYTES":
        return np.array(STRINGS, dtype=object)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 0, 1], [2, 3, 4, 5]], dtype)
    if dtype.kind == "b":
        return np.array([[True, False, False, True], [False, True, True, True]])
    return np.array([[0.5, -2, np.inf, -np.inf], [0, 1, 2.5, -0.125]]).astype(dtype)


def read_outputs(reply):
    """The arrays of a reply by name, in its order."""
    pairs = zip(reply.outputs, reply.raw_output_contents, strict=True)
    return {output.name: read_raw(content, output.datatype, tuple(output.shape)) for output, content in pairs}


@pytest.mark.parametrize("datatype", ELEMENT_TYPES)
def test_infer_of_raw_contents_gives_back_every_datatype(stub, datatype):
    """There and back, each element keeps its bits; the request's id comes back with them."""
    values = make_values(datatype)
    request = build_request(f"identity_{datatype}", {"input": values}, request_id=f"id of {datatype}")
    reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
    assert (reply.id, reply.model_name, reply.model_version) == (request.id, request.model_name, "1")
    assert [output.datatype for output in reply.outputs] == [datatype]
    np.testing.assert_array_equal(read_outputs(reply)["output"], values)


@pytest.mark.parametrize("datatype", CARRIERS)
def test_infer_of_typed_contents_is_answered_raw(stub, datatype):
    """Values in the message's own fields are as good as raw ones."""
    values = make_values(datatype)
    request = build_request(f"identity_{datatype}", {"input": values})
    del request.raw_input_contents[:]
    getattr(request.inputs[0].contents, CARRIERS[datatype]).extend(values.ravel().tolist())
    np.testing.assert_array_equal(read_outputs(stub.ModelInfer(request, timeout=TIMEOUT_S))["output"], values)


def test_infer_answers_the_outputs_asked_for_in_that_order(stub):
    """Inputs go by name, outputs by the order of the request; without any, all come in the model's."""
    inputs = {"b": np.ones((1, 3), np.float32), "a": np.full((1, 3), 5, np.float32)}
    expected = {"difference": [[4.0] * 3], "sum": [[6.0] * 3]}
    for asked, given in (
        (("difference", "sum"), ["difference", "sum"]),
        (("sum",), ["sum"]),
        ((), ["sum", "difference"]),
    ):
        reply = stub.ModelInfer(build_request("sums", inputs, outputs=asked), timeout=TIMEOUT_S)
        outputs = {name: array.tolist() for name, array in read_outputs(reply).items()}
        assert list(outputs) == given
        assert outputs == {name: expected[name] for name in given}


@pytest.mark.parametrize("version", ["1", "2"])
def test_infer_of_a_version_is_answered_by_that_version(stub, version):
    """The message's version decides, and the answer tells it by its numbers."""
    reply = stub.ModelInfer(make_request(77, version=version), timeout=TIMEOUT_S)
    assert reply.model_version == version
    assert read_outputs(reply)["output"].tolist() == [[77 + step + int(version) * OFFSET for step in range(4)]]


def test_infer_over_4_mib_passes_in_both_directions(stub):
    """The limit is the server's setting and not grpcio's default."""
    values = np.random.default_rng(3).random((200_000, 4))
    reply = stub.ModelInfer(build_request("wide", {"input": values}), timeout=TIMEOUT_S)
    assert reply.ByteSize() > 6 * 10**6
    np.testing.assert_array_equal(read_outputs(reply)["output"], values)


def test_infer_by_many_asyncio_calls_gives_each_its_own(target, clients):
    """A few hundred at a time on one connection are batched, and none gets another's rows."""

    async def ask_all():
        async with target.connect_async() as channel:
            stub = GRPCInferenceServiceStub(channel)
            return await asyncio.gather(
                *(stub.ModelInfer(make_request(nonce), timeout=TIMEOUT_S) for nonce in range(300))
            )

    assert [find_wrong(reply, nonce) for nonce, reply in enumerate(clients.run(ask_all()))] == [""] * 300


def test_metadata_tells_server_and_model(stub):
    """Names, versions, and the signature with the batch in front."""
    server = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT_S)
    assert server.name == "sluice"
    assert server.version
    model = stub.ModelMetadata(pb.ModelMetadataRequest(name="adder", version="1"), timeout=TIMEOUT_S)
    assert (model.name, list(model.versions)) == ("adder", ["1", "2"])
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*model.inputs, *model.outputs)]
    assert tensors == [("input", "INT64", [-1, 4]), ("output", "INT64", [-1, 4])]


def test_index_and_readiness_agree_that_all_serve(stub):
    """The server, every model in the index, and each version by its name."""
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_S).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_S).ready
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
    assert {entry.name for entry in index} >= {"adder", "slow", *(f"identity_{name}" for name in ELEMENT_TYPES)}
    assert {entry.state for entry in index} == {"READY"}
    for entry in index:
        assert stub.ModelReady(pb.ModelReadyRequest(name=entry.name, version=entry.version), timeout=TIMEOUT_S).ready


def test_health_names_server_models_and_versions(target):
    """As gateways and orchestrators ask."""
    with target.connect() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "adder", "adder/2"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="adder/3"), timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", UNSERVED)
def test_what_is_not_served_says_so_by_name(stub, name):
    """A call of the protocol that comes later is told from one that nobody knows."""
    with pytest.raises(grpc.RpcError) as raised:
        getattr(stub, name)(getattr(pb, METHODS[name].input_type.name)(), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert name in raised.value.details()
