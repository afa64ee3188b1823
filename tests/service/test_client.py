"""The client helper against a real server."""

import grpc
import numpy as np
import pytest

from service.client import Client, ClientError, Credentials, build_request, read_response
from service.pb import open_inference_pb2 as pb
from service.tensors import DTYPES, TensorError
from tests.onnx_models import ELEMENT_TYPES, add_and_subtract, identity, newer_opset, save
from tests.served import serving


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with an identity of every datatype, a model of two inputs and one that cannot serve."""
    folder = tmp_path_factory.mktemp("models")
    for datatype, element_type in ELEMENT_TYPES.items():
        save(identity(element_type), folder, f"identity_{datatype}")
    save(add_and_subtract(), folder, "pair", 3)
    save(newer_opset(), folder, "newer")
    with serving(folder) as address:
        yield address


@pytest.fixture
def client(address):
    """A client of that server."""
    with Client(address) as client:
        yield client


def make_values(datatype):
    """Two rows of four elements."""
    if datatype == "BYTES":
        return np.array([[b"", b"\0", "é", b"\xff\0"], ["a", b"bc", b"def", b"ghij" * 99]], object)
    return np.arange(8).reshape(2, 4).astype(DTYPES[datatype])


@pytest.mark.parametrize("datatype", DTYPES)
def test_infer_gives_back_what_was_sent_of_every_datatype(client, datatype):
    """Through the wire and the model and back, the values are the same."""
    values = make_values(datatype)
    answer = client.infer(f"identity_{datatype}", {"input": values}, request_id="nonce", datatypes={"input": datatype})
    expected = [[item.encode() if isinstance(item, str) else item for item in row] for row in values.tolist()]
    assert answer.outputs["output"].tolist() == expected
    assert answer.datatypes == {"output": datatype}
    assert (answer.model, answer.version, answer.request_id) == (f"identity_{datatype}", "1", "nonce")


def test_infer_answers_the_outputs_asked_for_in_that_order(client):
    """Two inputs by name, two outputs in the caller's order, of the version named."""
    inputs = {"b": np.ones((1, 3), np.float32), "a": np.full((1, 3), 5, np.float32)}
    answer = client.infer("pair", inputs, version="3", outputs=("difference", "sum"))
    assert [(name, array.tolist()) for name, array in answer.outputs.items()] == [
        ("difference", [[4, 4, 4]]),
        ("sum", [[6, 6, 6]]),
    ]


def test_describe_model_and_list_models_tell_what_there_is(client):
    """Signature of one model, and states of all, the broken one among them with its reason."""
    metadata = client.describe_model("pair")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("a", "FP32", [-1, 3]),
        ("b", "FP32", [-1, 3]),
    ]
    states = {entry.name: (entry.version, entry.state) for entry in client.list_models()}
    assert states.pop("newer") == ("1", "UNAVAILABLE")
    assert states.pop("pair") == ("3", "READY")
    assert set(states.values()) == {("1", "READY")}


def test_error_of_a_call_names_server_status_and_cause(client, address):
    """Whoever reads it knows whom was asked, and what was wrong."""
    with pytest.raises(ClientError, match=rf"^{address}: NOT_FOUND: .*nothing") as caught:
        client.describe_model("nothing")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_error_without_a_connection_says_so_shortly():
    """gRPC's own words repeat the address twice."""
    with Client("127.0.0.1:1", timeout_s=5) as client, pytest.raises(ClientError) as caught:
        client.list_models()
    assert str(caught.value).startswith("127.0.0.1:1: no connection: ")
    assert str(caught.value).count("127.0.0.1:1") == 1


def test_credentials_name_the_file_that_is_missing(tmp_path):
    """And a certificate without its key is refused before any call."""
    with pytest.raises(ClientError, match=r"gateway-ca\.pem: No such file"):
        Client("127.0.0.1:1", Credentials.of_state(tmp_path))
    with pytest.raises(ClientError, match="certificate and its key"):
        Credentials(tmp_path / "ca.pem", certificate=tmp_path / "client.pem").load()


def test_read_response_without_raw_contents_is_refused():
    """Outputs and contents must be as many."""
    response = pb.ModelInferResponse(outputs=[{"name": "a", "datatype": "FP32", "shape": [1]}])
    with pytest.raises(TensorError, match="for 1 outputs, given for 0"):
        read_response(response)


def test_build_request_names_datatypes_by_dtype():
    """Raw contents in the order of the inputs."""
    request = build_request("m", {"a": np.zeros((1, 2), np.int16), "b": np.array(["x"])}, version="4", request_id="i")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
        ("a", "INT16", [1, 2]),
        ("b", "BYTES", [1]),
    ]
    assert list(request.raw_input_contents) == [b"\0" * 4, b"\1\0\0\0x"]
    assert (request.model_name, request.model_version, request.id) == ("m", "4", "i")
