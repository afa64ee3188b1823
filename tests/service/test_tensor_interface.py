"""What a configuration says about the shapes, the labels and the leaving out of tensors, in a repository."""

import numpy as np
import onnx_models
import pytest
from inference_messages import build_request, decode_reply

from kernels.engine import Engine
from service.model_folders import ModelFolderError
from service.repository import State
from service.tensor_interface import MAX_LABELS_BYTES, read_labels
from tests.service.servicers import serve_folder

ROW = np.arange(6, dtype=np.float32)
LABELLED = 'output { name: "output" label_filename: "labels.txt" }'


@pytest.fixture
def engine():
    """An engine for the repository's models."""
    made = Engine(workers=1)
    yield made
    made.close()


@pytest.fixture
def load(tmp_path, engine):
    """Serve one model by a configuration: load(model, config) gives its version's entry."""

    def load_model(model, config, labels=None):
        onnx_models.save(model, tmp_path, "shaped", config=config)
        if labels is not None:
            (tmp_path / "shaped" / "labels.txt").write_bytes(labels)
        return serve_folder(tmp_path, engine)[1].find("shaped")

    return load_model


def test_reshaped_tensors_are_served_and_described_as_callers_see_them(load, engine):
    """The configuration's dims; the model has its own."""
    config = """max_batch_size: 4
        input { name: "input" dims: [6] reshape { shape: [2, 3] } }
        output { name: "output" dims: [6, 1] reshape { shape: [2, 3] } }"""
    entry = load(onnx_models.identity(shape=("batch", 2, 3)), config)
    assert entry.state is State.READY, entry.reason
    assert [spec.shape for spec in (*entry.config.inputs, *entry.config.outputs)] == [(-1, 6), (-1, 6, 1)]
    assert list(entry.config.proto.input[0].reshape.shape) == [2, 3]
    reply = engine.infer(build_request("shaped", {"input": ROW.reshape(1, 6)}).SerializeToString())
    np.testing.assert_array_equal(decode_reply(reply)["output"], ROW.reshape(1, 6, 1))


def test_row_of_one_number_may_be_a_scalar_to_the_model(load, engine):
    """The use that Triton's documentation has for it: [1] to callers, [batch] to the model."""
    config = """max_batch_size: 8
        input { name: "index" dims: [1] reshape { shape: [] } }
        output { name: "output" dims: [1] reshape { shape: [] } }"""
    assert load(onnx_models.picker(), config).state is State.READY
    reply = engine.infer(build_request("shaped", {"index": np.array([[3], [2]])}).SerializeToString())
    assert decode_reply(reply)["output"].tolist() == [[4.5], [3.0]]


def test_model_whose_reshape_counts_the_batch_runs_one_request_at_a_time(load):
    """As with dims."""
    config = 'input { name: "input" dims: [6] reshape { shape: [1, 6] } }'
    entry = load(onnx_models.identity(shape=("batch", 6)), config)
    assert entry.state is State.READY, entry.reason
    assert entry.config.max_batch_size == 0
    assert entry.config.inputs[0].shape == (6,)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("dims: [5] reshape { shape: [2, 3] }", "expected dims with the same elements"),
        ("reshape { shape: [2, 3] }", "given []"),
        ("dims: [-1] reshape { shape: [2, 3] }", "expected dims with the same elements"),
        ("dims: [6, 0] reshape { shape: [2, 3] }", "given [6, 0]"),
        ("dims: [6] reshape { shape: [3, 2] }", "reshape.shape: expected [2, 3], as in the model file"),
        ("dims: [6] reshape { shape: [6] }", "reshape.shape: expected [2, 3], as in the model file"),
    ],
)
@pytest.mark.parametrize("field", ["input", "output"])
def test_reshape_that_does_not_fit_is_refused_by_name(load, field, config, expected):
    """With the dims, or with the model file."""
    entry = load(onnx_models.identity(shape=(2, 3)), f'{field} {{ name: "{field}" {config} }}')
    assert entry.state is State.UNAVAILABLE
    assert entry.reason.startswith(f"config.pbtxt: {field} '{field}': reshape")
    assert expected in entry.reason


def test_optional_input_may_be_left_out(load, engine):
    """The model's own value takes its place."""
    entry = load(onnx_models.scaler(), 'input { name: "scale" optional: true }')
    assert entry.state is State.READY, entry.reason
    assert [tensor.optional for tensor in entry.config.proto.input] == [False, True]
    reply = engine.infer(build_request("shaped", {"input": ROW}).SerializeToString())
    np.testing.assert_array_equal(decode_reply(reply)["output"], ROW * 2)


def test_optional_input_without_a_value_makes_the_model_unavailable(load):
    """It could not be left out."""
    entry = load(onnx_models.identity(), 'input { name: "input" optional: true }')
    assert entry.reason == "input 'input' is to be optional, and the model file has no value for it"


@pytest.mark.parametrize("labels", [b"cat\ndog\n", b"cat\r\ndog\r\n", b"cat\ndog"])
def test_labels_name_the_classes(load, engine, labels):
    """A line each, however it ends."""
    assert load(onnx_models.identity(shape=("batch", 3)), LABELLED, labels).state is State.READY
    request = build_request("shaped", {"input": np.array([[1, 3, 2]], np.float32)}, outputs=["output"])
    request.outputs[0].parameters["classification"].int64_param = 3
    reply = decode_reply(engine.infer(request.SerializeToString()))
    assert reply["output"].tolist() == [[b"3.000000:1:dog", b"2.000000:2", b"1.000000:0:cat"]]


def test_labels_that_are_missing_make_the_model_unavailable(load):
    """By the file's name, and not by its path."""
    entry = load(onnx_models.identity(), LABELLED)
    assert (entry.state, entry.reason) == (State.UNAVAILABLE, "labels.txt is missing")


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "link.txt", ".."])
def test_labels_outside_the_models_folder_are_refused(tmp_path, name):
    """Whichever way they lead there."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelFolderError, match="leads out of its folder"):
        read_labels(folder, name)


def test_labels_without_end_are_refused(tmp_path):
    """A file has a limit."""
    with (tmp_path / "labels.txt").open("wb") as file:
        file.truncate(MAX_LABELS_BYTES + 1)
    with pytest.raises(ModelFolderError, match="expected at most"):
        read_labels(tmp_path, "labels.txt")
