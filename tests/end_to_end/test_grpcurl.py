"""grpcurl knows the server by reflection alone: no proto file, in plain text and with certificates."""

import base64
import json
import subprocess

import numpy as np
import pytest

from tests.end_to_end.models import OFFSET
from tests.go_program import GoProgram

GRPCURL = GoProgram("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3")
TIMEOUT_S = 60
SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="session")
def grpcurl():
    """The program."""
    return GRPCURL.find()


@pytest.fixture
def run(grpcurl, target):
    """Run grpcurl against the target; the body of a request goes in as JSON. Expects success unless told."""

    def run_grpcurl(*words, body=None, status=0):
        data = ["-d", json.dumps(body)] if body is not None else []
        command = [grpcurl, *target.grpcurl_flags, *data, target.address, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run_grpcurl


def test_list_names_every_service(run):
    """Inference, health, and reflection in both versions."""
    assert set(run("list").split()) == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_describe_shows_methods_and_fields(run):
    """From the service down to the fields of a message."""
    assert "rpc ModelInfer ( .inference.ModelInferRequest )" in run("describe", SERVICE)
    assert "repeated bytes raw_input_contents = 7;" in run("describe", "inference.ModelInferRequest")


def test_infer_of_typed_contents_is_answered_raw(run):
    """As one types it by hand."""
    body = {
        "model_name": "adder",
        "model_version": "2",
        "id": "typed",
        "inputs": [
            {"name": "input", "datatype": "INT64", "shape": [1, 4], "contents": {"int64_contents": [1, 2, 3, 4]}}
        ],
    }
    answer = json.loads(run(f"{SERVICE}/ModelInfer", body=body))
    assert (answer["id"], answer["model_version"]) == ("typed", "2")
    given = np.frombuffer(base64.b64decode(answer["raw_output_contents"][0]), np.int64)
    assert given.tolist() == [value + 2 * OFFSET for value in (1, 2, 3, 4)]


def test_infer_of_what_is_wrong_shows_status_and_reason(run):
    """grpcurl's exit status is 64 plus that of the call."""
    body = {"model_name": "adder", "inputs": [{"name": "imput", "datatype": "INT64", "shape": [1, 4]}]}
    said = run(f"{SERVICE}/ModelInfer", body=body, status=64 + 3)
    assert "InvalidArgument" in said
    assert "input 'imput' is unknown; the model has 'input'" in said


def test_health_and_readiness_are_answered(run):
    """As a probe asks."""
    assert json.loads(run("grpc.health.v1.Health/Check")) == {"status": "SERVING"}
    assert json.loads(run("grpc.health.v1.Health/Check", body={"service": "adder/1"})) == {"status": "SERVING"}
    assert json.loads(run(f"{SERVICE}/ServerReady")) == {"ready": True}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_of_either_version_is_called_by_name(run, version):
    """grpcurl itself picks one; a client of either gets the same files."""
    method = f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    answer = json.loads(run(method, body={"file_containing_symbol": SERVICE}))
    assert answer["file_descriptor_response"]["file_descriptor_proto"]
