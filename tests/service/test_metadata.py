"""The rpcs that tell what there is, called over a real connection."""

import functools

import grpc
import pytest

from kernels.engine import Engine
from service import __version__
from service.health import HealthBoard
from service.metadata import EXTENSIONS, RPC_EXTENSIONS, UNSERVED
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.permissions import Permissions
from tests.aio_server import running_server
from tests.onnx_models import add_and_subtract, newer_opset, save, tiny
from tests.service.servicers import make_servicer, serve_folder


@pytest.fixture(scope="module")
def engine():
    """What runs the models."""
    engine = Engine(workers=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, engine):
    """Two versions of one model, one model that cannot serve, one that is no model; and the control of them."""
    folder = tmp_path_factory.mktemp("models")
    save(tiny(), folder, "tiny", 1)
    save(tiny(), folder, "tiny", 10)
    save(newer_opset(), folder, "tiny", 11)
    save(add_and_subtract(), folder, "pair", 2, config='input { name: "b" } max_batch_size: 8')
    (folder / "nothing").mkdir()
    return serve_folder(folder, engine)


@pytest.fixture
def board():
    """A board of a server that is ready."""
    board = HealthBoard()
    board.mark_ready()
    return board


@pytest.fixture
def stub(engine, served, board):
    """A client of a server that has only the servicer under test."""
    servicer = make_servicer(engine, *served, board=board)
    add = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    with (
        running_server(lambda server: add(servicer, server)) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused(call, request):
    """Status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code(), caught.value.details()


def test_server_live_and_ready_tell_apart_draining(stub, board):
    """A server that drains is alive and takes nothing more."""
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    board.drain()
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert not stub.ServerReady(pb.ServerReadyRequest()).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready


def test_server_ready_while_loading_is_false(engine, served):
    """Ready is said, not assumed."""
    servicer = make_servicer(engine, *served)
    assert not servicer.ServerReady(pb.ServerReadyRequest(), None).ready


def test_server_metadata_names_server_version_and_extensions(stub):
    """Clients decide by the extensions what to call."""
    answer = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (answer.name, answer.version, list(answer.extensions)) == ("sluice", __version__, EXTENSIONS)
    assert sorted(EXTENSIONS) == EXTENSIONS


@pytest.mark.parametrize("extension", RPC_EXTENSIONS)
def test_extension_is_named_only_when_all_its_rpcs_are_served(extension):
    """What answers UNIMPLEMENTED is in no extension."""
    assert (extension in EXTENSIONS) is not bool(set(RPC_EXTENSIONS[extension]) & set(UNSERVED))


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
        ("other", "", "NOT_FOUND", "Request for unknown model: 'other' is not found"),
        ("tiny", "2", "NOT_FOUND", "'tiny' version 2 is not found"),
        ("tiny", "two", "NOT_FOUND", "'two': model 'tiny' has no such label"),
        ("tiny", "-2", "INVALID_ARGUMENT", "'-2': expected a positive number or a label"),
    ],
)
def test_model_calls_for_what_is_not_there_say_what_is_wrong(stub, name, version, code, text):
    """The same status and text from every call that names a model."""
    calls = {
        stub.ModelReady: pb.ModelReadyRequest,
        stub.ModelMetadata: pb.ModelMetadataRequest,
        stub.ModelConfig: pb.ModelConfigRequest,
    }
    for call, request in calls.items():
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
    assert set(UNSERVED) < set(methods)
    assert not {"ModelInfer", "ServerLive", "ModelConfig", "ModelStatistics", "LogSettings"} & set(UNSERVED)
    for name in UNSERVED:
        request = getattr(pb, methods[name].input_type.name)()
        code, text = refused(getattr(stub, name), request)
        assert (code, text) == (grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version of sluice")


def test_model_statistics_are_of_versions_that_serve(stub):
    """Of all models, of one, of one version; one that cannot serve says why instead."""
    asked = [stub.ModelStatistics(pb.ModelStatisticsRequest(name=name)).model_stats for name in ("", "tiny", "pair")]
    versions = [[(entry.name, entry.version) for entry in answer] for answer in asked]
    assert versions == [
        [("pair", "2"), ("tiny", "1"), ("tiny", "10")],
        [("tiny", "1"), ("tiny", "10")],
        [("pair", "2")],
    ]
    code, text = refused(stub.ModelStatistics, pb.ModelStatisticsRequest(name="tiny", version="11"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "opset" in text
    assert refused(stub.ModelStatistics, pb.ModelStatisticsRequest(name="nothing"))[0] is grpc.StatusCode.UNAVAILABLE


def test_log_settings_without_a_value_are_refused(stub):
    """A message whose oneof is empty says nothing."""
    request = pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue()})
    code, text = refused(stub.LogSettings, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "log_info: expected true or false, given None" in text


def test_log_settings_of_a_caller_from_elsewhere_are_read_only(engine, served):
    """A proxy's caller may look, and with the setting change too."""
    elsewhere = [("x-forwarded-for", "10.0.0.1")]
    change = pb.LogSettingsRequest(settings={"log_error": pb.LogSettingsRequest.SettingValue(bool_param=False)})
    for permissions, is_allowed in ((Permissions(), False), (Permissions(["log_settings"]), True)):
        add = functools.partial(
            open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
            make_servicer(engine, *served, permissions=permissions),
        )
        with (
            running_server(add) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.LogSettings(pb.LogSettingsRequest(), metadata=elsewhere).settings["log_error"].bool_param
            if is_allowed:
                assert not stub.LogSettings(change, metadata=elsewhere).settings["log_error"].bool_param
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.LogSettings(change, metadata=elsewhere)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
