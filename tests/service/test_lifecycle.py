"""The lifecycle at the start: what loads serves, what cannot says why, and neither disturbs the other."""

import numpy as np
import pytest
from lifecycle_rig import infer, save_bytes
from onnx import TensorProto

from kernels import status
from kernels.engine import InferError
from service.lifecycle import Lifecycle
from service.model_folders import ModelFolderError
from service.repository import State
from tests.onnx_models import column_sums, identity, newer_opset, save, tiny


def with_external_data():
    """A model that wants a file from outside read."""
    model = identity()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../secret.bin")
    return model.SerializeToString()


def test_load_serves_every_version_of_every_model(tmp_path, engine, load_all):
    """Each version answers as itself, and without a version the highest does."""
    save(tiny(seed=1), tmp_path, "tiny", 1)
    save(tiny(seed=2), tmp_path, "tiny", 2)
    save(identity(), tmp_path, "echo", 10)
    repository = load_all()
    assert [(entry.name, entry.version, entry.state) for entry in repository.index()] == [
        ("echo", 10, State.READY),
        ("tiny", 1, State.READY),
        ("tiny", 2, State.READY),
    ]
    rows = np.ones((1, 16), np.float32)
    first, second = infer(engine, "tiny", rows, "1"), infer(engine, "tiny", rows, "2")
    assert not np.allclose(first, second)
    assert np.array_equal(infer(engine, "tiny", rows), second)
    assert repository.find("tiny").version == 2


def test_load_beside_broken_models_serves_the_whole_ones(tmp_path, engine, load_all):
    """Every way of being broken makes one version unavailable, with a reason that says which way."""
    save(identity(), tmp_path, "good")
    save_bytes(tmp_path, "empty", b"")
    save_bytes(tmp_path, "external", with_external_data())
    save_bytes(tmp_path, "garbage", b"this is no model at all")
    save_bytes(tmp_path, "truncated", tiny().SerializeToString()[:-100])
    save_bytes(tmp_path, "graphless", b"\x08\x08")
    save(newer_opset(), tmp_path, "newer")
    save(identity(), tmp_path, "missing").unlink()
    save(identity(), tmp_path, "unread", config="sequence_batching { iterative_sequence: true }")
    save(identity(), tmp_path, "mistyped", config="input {\n name }")
    save(identity(), tmp_path, "contradicted", config='input { name: "input" data_type: TYPE_INT8 }')
    (tmp_path / "versionless").mkdir()
    (tmp_path / "no name").mkdir()
    (tmp_path / "escape").symlink_to("/")
    repository = load_all()
    reasons = {entry.name: entry.reason for entry in repository.index() if entry.state is State.UNAVAILABLE}
    expected = {
        "empty": "the file is empty",
        "external": "tensor 'w' has its data in another file",
        "garbage": "not ONNX or is cut off",
        "truncated": "not ONNX or is cut off",
        "graphless": "ONNX",
        "newer": "opset",
        "missing": "model.onnx is missing",
        "unread": "config.pbtxt: sequence_batching.iterative_sequence: this server does not read",
        "mistyped": "config.pbtxt:2:",
        "contradicted": "data_type: expected TYPE_FP32, as in the model file, given TYPE_INT8",
        "versionless": "expected a folder named by a version number",
        "no name": "expected letters, digits",
        "escape": "leads out of its folder",
    }
    assert reasons.keys() == expected.keys()
    assert {name: reason for name, reason in reasons.items() if expected[name] not in reason} == {}
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    assert np.array_equal(infer(engine, "good", values), values[0])


def test_load_of_broken_version_leaves_its_sisters_and_tells_callers_why(tmp_path, engine, load_all):
    """The engine refuses with the same reason that the index shows, and the highest that serves is the default."""
    save(identity(), tmp_path, "echo", 1)
    save(newer_opset(), tmp_path, "echo", 2)
    repository = load_all()
    reason = repository.find("echo", "2").reason
    values = np.ones((1, 4), np.float32)
    with pytest.raises(InferError, match="opset") as caught:
        infer(engine, "echo", values, "2")
    assert caught.value.code == status.UNAVAILABLE
    assert reason in caught.value.message
    assert repository.find("echo").version == 1
    assert infer(engine, "echo", values).size == 4


def test_load_with_thread_parameters_and_batches_serves_so(tmp_path, engine, load_all):
    """What the configuration says reaches the session and the engine."""
    config = """max_batch_size: 2
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        instance_group { count: 2 }"""
    save(identity(), tmp_path, "echo", config=config)
    repository = load_all()
    assert repository.find_ready("echo").config.max_batch_size == 2
    with pytest.raises(InferError, match="2") as caught:
        infer(engine, "echo", np.ones((3, 4), np.float32))
    assert caught.value.code == status.INVALID


def test_load_chooses_batches_by_the_model_file(tmp_path, engine, repository):
    """A model whose first dimension is no batch is run one request at a time."""
    save(identity(), tmp_path, "echo")
    save(column_sums(), tmp_path, "sums")
    lifecycle = Lifecycle(tmp_path, engine, repository, default_max_batch_size=16)
    lifecycle.find_models()
    lifecycle.load_found()
    assert [repository.find_ready(name).config.max_batch_size for name in ("echo", "sums")] == [16, 0]


def test_find_models_of_missing_repository_says_so(tmp_path, engine, repository):
    """There is nothing to go on with."""
    with pytest.raises(ModelFolderError, match="cannot be read"):
        Lifecycle(tmp_path / "none", engine, repository).find_models()


def test_load_tells_each_state(tmp_path, engine, repository, load_all):
    """A version is LOADING, and refused as such, before it is READY."""
    save(identity(), tmp_path, "echo")
    seen = []
    repository.subscribe(lambda entry: seen.append((entry.version, entry.state, dict(engine.versions()))))
    load_all()
    assert seen == [
        (1, State.LOADING, {("echo", 1): "the model is loading"}),
        (1, State.READY, {("echo", 1): None}),
    ]


def test_load_with_unforeseen_error_keeps_its_detail_in_the_log(tmp_path, load_all, monkeypatch, caplog):
    """Callers hear no detail, and the other versions are tried."""

    def fail(*arguments):
        raise RuntimeError("the secret detail")

    monkeypatch.setattr("service.version_loader.complete_config", fail)
    save(identity(), tmp_path, "echo", 1)
    save(identity(), tmp_path, "echo", 2)
    repository = load_all()
    assert {entry.reason for entry in repository.index()} == {"loading failed for a reason that the server's log has"}
    assert caplog.text.count("RuntimeError: the secret detail") == 2
