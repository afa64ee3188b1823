"""Models that cannot serve: each says why, in every place where one looks, and the others serve."""

import json
import os
import subprocess
import sys

import grpc
import onnx_models
import pytest
from inference_messages import build_request
from onnx import TensorProto

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request
from tests.end_to_end.models import VERSIONS, adder
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.served import CLI

TIMEOUT_S = 30.0
# Words of each model's reason.
REASONS = {
    "garbage": "not ONNX or is cut off",
    "truncated": "cut off",
    "empty": "the file is empty",
    "missing": "model.onnx is missing",
    "newer": "opset",
    "external": "tensor 'offset' has its data in another file",
    "linked_file": "model.onnx leads out of its folder",
    "linked_version": "1 leads out of its folder",
    "pipe": "model.onnx is not a regular file",
    "sequence": "output",
    "contradicted": "config.pbtxt: input 'input': dims: expected [4], as in the model file",
    "unknown_field": "sequence_batching.iterative_sequence",
}


def write_bad_models(folder, outside):
    """One model for each reason, and a good one whose third version is broken."""
    for version in VERSIONS:
        onnx_models.save(adder(version), folder, "adder", version)
    for name, content in (("garbage", b"<html>not a model</html>"), ("empty", b"")):
        write_file(folder / name / "1" / "model.onnx", content)
    write_file(folder / "truncated" / "1" / "model.onnx", onnx_models.tiny().SerializeToString()[:-500])
    write_file(folder / "adder" / "3" / "model.onnx", b"\xff" * 100)
    (folder / "missing" / "1").mkdir(parents=True)
    onnx_models.save(onnx_models.newer_opset(), folder, "newer")
    onnx_models.save(onnx_models.sequence(), folder, "sequence")
    onnx_models.save(onnx_models.identity(), folder, "contradicted", config='input { name: "input" dims: 5 }')
    onnx_models.save(
        onnx_models.identity(), folder, "unknown_field", config="sequence_batching { iterative_sequence: true }"
    )
    write_external(folder, outside)
    link_out(folder, outside)


def write_file(path, content):
    """A file with its folders."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def write_external(folder, outside):
    """A model that reads a file of this machine as a tensor."""
    (outside / "secret").write_bytes(bytes(8))
    model = adder(1)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../outside/secret")
    write_file(folder / "external" / "1" / "model.onnx", model.SerializeToString())


def link_out(folder, outside):
    """Models whose file, or whose version's folder, lies elsewhere; and one whose file never ends."""
    elsewhere = onnx_models.save(onnx_models.identity(), outside, "elsewhere")
    for name in ("linked_file", "linked_version", "pipe"):
        (folder / name).mkdir()
    (folder / "linked_version" / "1").symlink_to(elsewhere.parent)
    (folder / "linked_file" / "1").mkdir()
    (folder / "linked_file" / "1" / "model.onnx").symlink_to(elsewhere)
    (folder / "pipe" / "1").mkdir()
    os.mkfifo(folder / "pipe" / "1" / "model.onnx")


@pytest.fixture(scope="module")
def server(transport, tmp_path_factory):
    """The way to a server of all of them."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("models", "outside"):
        (folder / name).mkdir()
    write_bad_models(folder / "models", folder / "outside")
    with ServerProcess(folder / "models", "--insecure") as server:
        yield Target(server.address)


@pytest.fixture(scope="module")
def stub(server):
    """Stubs on a connection to it."""
    with server.connect() as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("name", REASONS)
def test_bad_model_is_unavailable_with_its_reason(stub, name):
    """In the index, to whoever calls it, and to whoever asks for its metadata."""
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
    (entry,) = [entry for entry in index if entry.name == name]
    assert (entry.version, entry.state) == ("1", "UNAVAILABLE")
    assert REASONS[name] in entry.reason
    for method, request in (
        (stub.ModelInfer, build_request(name, {})),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=name)),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            method(request, timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert entry.reason[:200] in raised.value.details()
    assert not stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=TIMEOUT_S).ready


def test_other_models_and_versions_serve(stub):
    """The highest version that serves is the one that callers get who name none."""
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_S).ready
    for version in ("1", "2", ""):
        reply = stub.ModelInfer(make_request(9, version=version), timeout=TIMEOUT_S)
        assert reply.model_version == (version or "2")
        assert find_wrong(reply, 9) == ""
    with pytest.raises(grpc.RpcError, match="model 'adder' version 3 is unavailable") as raised:
        stub.ModelInfer(make_request(9, version="3"), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_models_command_shows_every_reason(server):
    """`sluice models`, for people and for scripts."""
    command = [sys.executable, "-c", CLI, "models", *server.sluice_flags]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    listed = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    rows = {(row["name"], row["version"]): row for row in json.loads(listed)}
    for name, words in REASONS.items():
        assert rows[name, "1"]["state"] == "UNAVAILABLE"
        assert words in rows[name, "1"]["reason"]
        assert any(line.startswith(f"{name} 1: ") and words in line for line in shown.splitlines())
    assert [rows["adder", version]["state"] for version in "123"] == ["READY", "READY", "UNAVAILABLE"]
