"""What clients may do to the repository, over a real connection: in which mode, with what, and from where."""

import json
import threading

import grpc
import onnx
import pytest
from ensemble_folders import describe_chain, save_ensemble
from google.protobuf.json_format import MessageToJson
from google.protobuf.text_format import Parse

from certs.identities import CLIENT_URI
from kernels.engine import Engine
from service.access_policy import AccessPolicy, Grant, Identity, Role
from service.callers import Callers
from service.guard import Guard
from service.lifecycle import Lifecycle
from service.model_control import MAX_CALLS
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.pb.model_config_pb2 import ModelConfig
from service.permissions import Permissions
from service.repository import Repository
from tests.aio_server import running_server
from tests.onnx_models import identity, newer_opset, save, tiny
from tests.service.servicers import make_servicer

TIMEOUT_S = 30


class Served:
    """A server of a repository's control, and stubs on a connection to it."""

    def __init__(self, folder, engine, *, mode="none", remote_controls=(), guard=None):
        self.folder = folder
        self.repository = Repository()
        self.lifecycle = Lifecycle(folder, engine, self.repository)
        self.lifecycle.find_models(lambda name: mode != "explicit")
        self.lifecycle.load_found()
        permissions = Permissions(remote_controls, guard)
        self.servicer = make_servicer(engine, self.lifecycle, self.repository, permissions=permissions, mode=mode)

    def index(self):
        """What RepositoryIndex answers, as {(name, version): (state, reason)}."""
        models = self.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
        return {(one.name, one.version): (one.state, one.reason) for one in models}

    def load(self, name, metadata=(), **parameters):
        """RepositoryModelLoad with parameters of any type."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        set_parameters(request, parameters)
        return self.stub.RepositoryModelLoad(request, timeout=TIMEOUT_S, metadata=metadata)

    def unload(self, name, **parameters):
        """RepositoryModelUnload."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        set_parameters(request, parameters)
        return self.stub.RepositoryModelUnload(request, timeout=TIMEOUT_S)

    def refused(self, call, *arguments, **options):
        """Status and text of a call that fails."""
        with pytest.raises(grpc.RpcError) as caught:
            call(*arguments, **options)
        return caught.value.code().name, caught.value.details()


def set_parameters(request, parameters):
    """Each in the field of its Python type."""
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], fields[type(value)], value)


@pytest.fixture
def serve(tmp_path):
    """Serve a folder with options of ModelControl."""
    engine = Engine(workers=2)
    add = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    leave = []

    def start(**options):
        served = Served(tmp_path, engine, **options)
        running = running_server(lambda server: add(served.servicer, server))
        channel = grpc.insecure_channel(running.__enter__().address)
        leave[:] = [lambda: channel.close(), lambda: running.__exit__(None, None, None)]
        served.stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        return served

    yield start
    for step in leave:
        step()
    engine.close()


@pytest.fixture
def explicit(serve, tmp_path):
    """A served repository of one model, whose clients control it."""
    save(identity(), tmp_path, "echo")
    return serve(mode="explicit")


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_load_and_unload_without_explicit_control_are_refused(serve, tmp_path, mode):
    """With the setting that would allow them; the models serve on."""
    save(identity(), tmp_path, "echo")
    served = serve(mode=mode)
    for call in (served.load, served.unload):
        code, text = served.refused(call, "echo")
        assert code == "PERMISSION_DENIED"
        assert f"expected model_control_mode 'explicit', given '{mode}'" in text
    assert served.index() == {("echo", "1"): ("READY", "")}


def test_load_and_unload_show_in_the_index(explicit):
    """In Triton's words, with unload_dependents or without."""
    assert explicit.index() == {("echo", "1"): ("UNAVAILABLE", "unloaded")}
    explicit.load("echo")
    assert explicit.index() == {("echo", "1"): ("READY", "")}
    ready = explicit.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    assert [one.name for one in ready] == ["echo"]
    explicit.unload("echo", unload_dependents=True)
    assert explicit.index() == {("echo", "1"): ("UNAVAILABLE", "unloaded")}
    assert not explicit.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models


def test_index_shows_folders_that_came_since(explicit):
    """Who controls loading need not restart the server for a new model."""
    save(tiny(), explicit.folder, "tiny", 4)
    assert explicit.index()["tiny", "4"] == ("UNAVAILABLE", "unloaded")
    explicit.load("tiny")
    assert explicit.index()["tiny", "4"] == ("READY", "")


def test_load_of_broken_model_says_why(explicit):
    """In the answer and in the index."""
    save(newer_opset(), explicit.folder, "newer")
    code, text = explicit.refused(explicit.load, "newer")
    assert code == "INVALID_ARGUMENT"
    assert "failed to load 'newer': version 1: " in text
    assert "opset" in text
    assert explicit.index()["newer", "1"][0] == "UNAVAILABLE"
    assert "opset" in explicit.index()["newer", "1"][1]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("nobody", "NOT_FOUND", "failed to load 'nobody': the repository has no such model"),
        ("../echo", "NOT_FOUND", "failed to load"),
        ("", "INVALID_ARGUMENT", "model_name: expected the name of a model"),
    ],
)
def test_load_of_what_is_not_there_says_so(explicit, name, code, text):
    """And leaves nothing in the index."""
    given = explicit.refused(explicit.load, name)
    assert given[0] == code
    assert text in given[1]
    assert len(explicit.index()) == 1


def test_unload_of_what_is_not_there_says_so(explicit):
    """It is unknown, as to every other call."""
    assert explicit.refused(explicit.unload, "nobody") == (
        "NOT_FOUND",
        "Request for unknown model: 'nobody' is not found",
    )


def test_calls_for_another_repository_are_not_found(explicit):
    """There is one, and it has no name."""
    for call, request in (
        (explicit.stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest),
        (explicit.stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest),
        (explicit.stub.RepositoryIndex, pb.RepositoryIndexRequest),
    ):
        assert explicit.refused(call, request(repository_name="other"))[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    "parameters",
    [
        {"other": "x"},
        {"config": b"{}"},
        {"config": ""},
        {"config": True},
        {"file:1/model.onnx": "text"},
        {"x" * 999: 1},
    ],
)
def test_load_with_parameter_that_is_none_is_refused_by_name(explicit, parameters):
    """Nothing that a client asks for is passed over."""
    code, text = explicit.refused(explicit.load, "echo", **parameters)
    assert code == "INVALID_ARGUMENT"
    assert next(iter(parameters))[:200] in text
    assert len(text) < 500


def test_unload_with_parameter_that_is_none_is_refused_by_name(explicit):
    """Of the wrong name or type."""
    for parameters in ({"other": True}, {"unload_dependents": "yes"}):
        code, text = explicit.refused(explicit.unload, "echo", **parameters)
        assert code == "INVALID_ARGUMENT"
        assert next(iter(parameters)) in text


def test_load_with_config_takes_it_instead_of_the_file_until_the_next_load(explicit):
    """The repository's own comes back with a load that brings nothing."""
    (explicit.folder / "echo" / "config.pbtxt").write_text("max_batch_size: 2")
    explicit.load("echo", config=json.dumps({"max_batch_size": 7}))
    assert explicit.repository.find("echo").config.max_batch_size == 7
    explicit.load("echo")
    assert explicit.repository.find("echo").config.max_batch_size == 2


def test_load_with_wrong_config_keeps_what_serves(explicit):
    """Broken JSON, a field that is not read, a value that does not fit the model."""
    explicit.load("echo")
    for config, reason in (
        ("{", "config: is not the JSON"),
        ('{"sequence_batching": {"iterative_sequence": true}}', "sequence_batching.iterative_sequence"),
        ('{"input": [{"name": "input", "dims": [9]}]}', "dims: expected [4]"),
    ):
        code, text = explicit.refused(explicit.load, "echo", config=config)
        assert code == "INVALID_ARGUMENT"
        assert reason in text
        assert explicit.index()["echo", "1"][0] == "READY"


def test_load_with_files_serves_them_instead_of_the_folder(explicit):
    """Other versions, and even a model of which the repository knows nothing; it is forgotten when it is unloaded."""
    content = identity().SerializeToString()
    explicit.load("echo", **{"config": "{}", "file:5/model.onnx": content})
    explicit.load("given", **{"config": '{"max_batch_size": 3}', "file:1/model.onnx": content})
    assert explicit.index() == {("echo", "5"): ("READY", ""), ("given", "1"): ("READY", "")}
    assert explicit.repository.find("given").config.max_batch_size == 3
    explicit.unload("given")
    explicit.load("echo")
    assert explicit.index() == {("echo", "1"): ("READY", "")}


def test_load_with_the_same_files_again_loads_nothing(explicit, monkeypatch):
    """They are told by their content."""
    given = {"config": "{}", "file:1/model.onnx": identity().SerializeToString()}
    explicit.load("echo", **given)
    monkeypatch.setattr(explicit.lifecycle._loader, "prepare", None)
    explicit.load("echo", **given)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"file:1/model.onnx": b"x"}, "parameter 'config': expected a configuration that goes with the files"),
        ({"config": "{}", "file:../x/1/model.onnx": b"x"}, "expected a path in the model's folder"),
        ({"config": "{}", "file:/etc/x": b"x"}, "expected a path in the model's folder"),
        ({"config": "{}", "file:1/model.onnx": b"garbage"}, "not ONNX or is cut off"),
        ({"config": "{}", "file:readme": b"x"}, "expected a folder named by a version number"),
    ],
)
def test_load_with_wrong_files_keeps_what_serves(explicit, parameters, reason):
    """And names no path of the server's."""
    explicit.load("echo")
    code, text = explicit.refused(explicit.load, "echo", **parameters)
    assert code == "INVALID_ARGUMENT"
    assert reason in text
    assert "/tmp" not in text
    assert explicit.index()["echo", "1"][0] == "READY"


def test_load_with_files_that_refer_outside_is_refused(explicit, tmp_path):
    """External data stay refused whoever brings the file."""
    model = identity()
    tensor = model.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    given = {"config": "{}", "file:1/model.onnx": model.SerializeToString()}
    assert "has its data in another file" in explicit.refused(explicit.load, "echo", **given)[1]


def test_override_from_behind_a_gateway_is_refused_unless_allowed(serve, tmp_path):
    """A gateway on the same machine passes on what comes from anywhere; a plain load is as good as any."""
    save(identity(), tmp_path, "echo")
    forwarded = (("x-forwarded-for", "203.0.113.7"),)
    served = serve(mode="explicit")
    served.load("echo", forwarded)
    code, text = served.refused(served.load, "echo", forwarded, config="{}")
    assert code == "PERMISSION_DENIED"
    assert "model_overrides" in text


def test_override_from_behind_a_gateway_is_taken_where_it_is_allowed(serve, tmp_path):
    """By the setting of that name."""
    save(identity(), tmp_path, "echo")
    served = serve(mode="explicit", remote_controls=["model_overrides"])
    served.load("echo", (("x-forwarded-for", "203.0.113.7"),), config='{"max_batch_size": 3}')
    assert served.repository.find("echo").config.max_batch_size == 3


@pytest.mark.parametrize(("step", "code"), [("echo", ""), ("secret", "PERMISSION_DENIED")])
def test_ensemble_is_brought_only_with_steps_that_the_caller_may_infer(serve, tmp_path, step, code):
    """Nobody asks again for a grant of the steps; one that lies in the repository is its owner's business."""
    for name in ("echo", "secret"):
        save(identity(), tmp_path, name)
    save_ensemble(tmp_path, "mine", describe_chain("secret"))
    roles = {"owner": Role(("mine",), ("load", "load_override")), "user": Role(("mine", "echo"), ("infer",))}
    policy = AccessPolicy(roles=roles, grants=(Grant("owner", (CLIENT_URI,)), Grant("user", (CLIENT_URI,))))
    served = serve(mode="explicit", guard=KnownCaller(policy))
    served.load("mine")
    config = MessageToJson(Parse(describe_chain(step), ModelConfig()), preserving_proto_field_name=True)
    if code:
        assert served.refused(served.load, "mine", config=config)[0] == code
    else:
        served.load("mine", config=config)


class KnownCaller(Guard):
    """Decides for one caller, whoever calls: without TLS nobody is known."""

    def __init__(self, policy):
        super().__init__(policy, Callers([]))

    def decide(self, context, action, model):
        """What the policy says."""
        return self.policy.decide(Identity((CLIENT_URI,)), action, model)


def test_loads_beyond_the_places_are_refused_and_reads_go_on(explicit, monkeypatch):
    """Loads that take long must not take the threads of everything else."""
    entered, leave = threading.Semaphore(0), threading.Event()

    def load(name, override):
        entered.release()
        assert leave.wait(TIMEOUT_S)

    monkeypatch.setattr(explicit.lifecycle, "load", load)
    request = pb.RepositoryModelLoadRequest(model_name="echo")
    calls = [explicit.stub.RepositoryModelLoad.future(request, timeout=TIMEOUT_S) for _ in range(MAX_CALLS)]
    for _ in calls:
        assert entered.acquire(timeout=TIMEOUT_S)
    code, text = explicit.refused(explicit.load, "echo")
    assert (code, text.split(";")[0]) == ("RESOURCE_EXHAUSTED", f"{MAX_CALLS} loads and unloads are under way")
    leave.set()
    assert [call.result() for call in calls] == [pb.RepositoryModelLoadResponse()] * MAX_CALLS
