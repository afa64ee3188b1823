"""The rpcs that tell what there is, called over a real connection."""

import grpc
import pytest

from kernels.engine import Engine
from service import __version__
from service.health import HealthBoard
from service.lifecycle import Lifecycle
from service.metadata import EXTENSIONS, UNSERVED, InferenceServicer
from service.model_control import ModelControl
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.repository import Repository
from tests.aio_server import running_server
from tests.onnx_models import add_and_subtract, newer_opset, save, tiny


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two versions of one model, one model that cannot serve, one that is no model; and the control of them."""
    folder = tmp_path_factory.mktemp("models")
    save(tiny(), folder, "tiny", 1)
    save(tiny(), folder, "tiny", 10)
    save(newer_opset(), folder, "tiny", 11)
    save(add_and_subtract(), folder, "pair", 2, config='input { name: "b" } max_batch_size: 8')
    (folder / "nothing").mkdir()
    engine = Engine(workers=1)
    repository = Repository()
    lifecycle = Lifecycle(folder, engine, repository)
    lifecycle.find_models()
    lifecycle.load_found()
    yield repository, ModelControl(lifecycle, repository)
    engine.close()


@pytest.fixture
def board():
    """A board of a server that is ready."""
    board = HealthBoard()
    board.mark_ready()
    return board


@pytest.fixture
def stub(repository, board):
    """A client of a server that has only the servicer under test."""
    servicer = InferenceServicer(repository[0], board, repository[1])
    add = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    with (
        running_server(lambda server: add(servicer, server)) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused(call, request):
    """Status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value.code(), caught.value.details()


def test_server_live_and_ready_tell_apart_draining(stub, board):
    """A server that drains is alive and takes nothing more."""
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    board.drain()
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert not stub.ServerReady(pb.ServerReadyRequest()).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready


def test_server_ready_while_loading_is_false(repository):
    """Ready is said, not assumed."""
    servicer = InferenceServicer(repository[0], HealthBoard(), repository[1])
    assert not servicer.ServerReady(pb.ServerReadyRequest(), None).ready


def test_server_metadata_names_server_version_and_extensions(stub):
    """Clients decide by the extensions what to call."""
    answer = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (answer.name, answer.version, list(answer.extensions)) == ("sluice", __version__, sorted(EXTENSIONS))


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("tiny", "", True), ("tiny", "10", True), ("tiny", "11", False), ("nothing", "", False)],
)
def test_model_ready_tells_whether_it_serves(stub, name, version, ready):
    """One version is meant by its number, any by none."""
    assert stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_model_metadata_shows_versions_inputs_and_outputs(stub):
    """What a client must send, in the model's order, with the batch first."""
    answer = stub.ModelMetadata(pb.ModelMetadataRequest(name="pair"))
    assert (answer.name, list(answer.versions), answer.platform) == ("pair", ["2"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.inputs] == [
        ("a", "FP32", [-1, 3]),
        ("b", "FP32", [-1, 3]),
    ]
    assert [one.name for one in answer.outputs] == ["sum", "difference"]


def test_model_metadata_lists_only_versions_that_serve_by_number(stub):
    """A version that cannot serve is in the index, with its reason, and not here."""
    assert list(stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny")).versions) == ["1", "10"]


@pytest.mark.parametrize(
    ("name", "version", "code", "text"),
    [
        ("", "", "INVALID_ARGUMENT", "given nothing"),
        ("other", "", "NOT_FOUND", "unknown model 'other'"),
        ("tiny", "2", "NOT_FOUND", "model 'tiny' has no version 2"),
        ("tiny", "two", "NOT_FOUND", "model 'tiny' has no version labelled two"),
        ("tiny", "-2", "INVALID_ARGUMENT", "expected a positive whole number or a label, given '-2'"),
    ],
)
def test_model_calls_for_what_is_not_there_say_what_is_wrong(stub, name, version, code, text):
    """The same status and text from every call that names a model."""
    for call, request in ((stub.ModelReady, pb.ModelReadyRequest), (stub.ModelMetadata, pb.ModelMetadataRequest)):
        given = refused(call, request(name=name, version=version))
        assert given[0] is grpc.StatusCode[code]
        assert text in given[1]


def test_model_metadata_of_what_cannot_serve_gives_the_reason(stub):
    """The reason is that of the index."""
    code, text = refused(stub.ModelMetadata, pb.ModelMetadataRequest(name="tiny", version="11"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "opset" in text


def test_repository_index_shows_every_version_with_state_and_reason(stub):
    """By name and then by number; what has no version shows why."""
    models = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert [(one.name, one.version, one.state, bool(one.reason)) for one in models] == [
        ("nothing", "", "UNAVAILABLE", True),
        ("pair", "2", "READY", False),
        ("tiny", "1", "READY", False),
        ("tiny", "10", "READY", False),
        ("tiny", "11", "UNAVAILABLE", True),
    ]


def test_repository_index_of_ready_ones_leaves_the_others_out(stub):
    """What can be called, and nothing else."""
    models = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    assert {one.state for one in models} == {"READY"}
    assert len(models) == 3


def test_repository_index_of_another_repository_is_not_found(stub):
    """There is one, and it has no name."""
    code, text = refused(stub.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="other"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'other'" in text


def test_every_rpc_that_is_not_served_says_so_by_name(stub):
    """Nothing answers as if it had worked, and the contract's every rpc is one or the other."""
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert len(UNSERVED) == len(methods) - 10
    for name in UNSERVED:
        request = getattr(pb, methods[name].input_type.name)()
        code, text = refused(getattr(stub, name), request)
        assert (code, text) == (grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version of sluice")
