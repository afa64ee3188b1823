"""The repository: what loads serves, what cannot says why, and neither disturbs the other."""

import numpy as np
import pytest
from onnx import TensorProto

from kernels import status
from kernels.engine import Engine, InferError
from service.model_folders import ModelFolderError
from service.pb import open_inference_pb2 as pb
from service.repository import Repository, State, parse_version
from service.status import InvalidArgumentError, NotFoundError, UnavailableError
from tests.onnx_models import column_sums, identity, newer_opset, save, tiny


@pytest.fixture
def engine():
    """An engine with two threads."""
    engine = Engine(workers=2)
    yield engine
    engine.close()


def load(folder, engine, **options):
    """A repository that has loaded what is in the folder."""
    repository = Repository(folder, engine, **options)
    repository.find_models()
    repository.load()
    return repository


def infer(engine, name, values, version=""):
    """Run a model with an input `input` on the engine."""
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    request.inputs.add(name="input", datatype="FP32", shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    response = pb.ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
    return np.frombuffer(response.raw_output_contents[0], np.float32)


def with_external_data():
    """A model that wants a file from outside read."""
    model = identity()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../secret.bin")
    return model.SerializeToString()


def save_bytes(repository, name, content):
    """Put a file that need not be a model where a model belongs."""
    path = save(identity(), repository, name)
    path.write_bytes(content)


def test_load_serves_every_version_of_every_model(tmp_path, engine):
    """Each version answers as itself, and without a version the highest does."""
    save(tiny(seed=1), tmp_path, "tiny", 1)
    save(tiny(seed=2), tmp_path, "tiny", 2)
    save(identity(), tmp_path, "echo", 10)
    repository = load(tmp_path, engine)
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


def test_load_beside_broken_models_serves_the_whole_ones(tmp_path, engine):
    """Every way of being broken makes one version unavailable, with a reason that says which way."""
    save(identity(), tmp_path, "good")
    save_bytes(tmp_path, "empty", b"")
    save_bytes(tmp_path, "external", with_external_data())
    save_bytes(tmp_path, "garbage", b"this is no model at all")
    save_bytes(tmp_path, "truncated", tiny().SerializeToString()[:-100])
    save_bytes(tmp_path, "graphless", b"\x08\x08")
    save(newer_opset(), tmp_path, "newer")
    save(identity(), tmp_path, "missing").unlink()
    save(identity(), tmp_path, "unread", config="version_policy { all {} }")
    save(identity(), tmp_path, "mistyped", config="input {\n name }")
    save(identity(), tmp_path, "contradicted", config='input { name: "input" data_type: TYPE_INT8 }')
    (tmp_path / "versionless").mkdir()
    (tmp_path / "no name").mkdir()
    (tmp_path / "escape").symlink_to("/")
    repository = load(tmp_path, engine)
    reasons = {entry.name: entry.reason for entry in repository.index() if entry.state is State.UNAVAILABLE}
    expected = {
        "empty": "the file is empty",
        "external": "tensor 'w' has its data in another file",
        "garbage": "not ONNX or is cut off",
        "truncated": "not ONNX or is cut off",
        "graphless": "ONNX",
        "newer": "opset",
        "missing": "model.onnx is missing",
        "unread": "config.pbtxt: version_policy: this server does not read",
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


def test_load_of_broken_version_leaves_its_sisters_and_tells_callers_why(tmp_path, engine):
    """The engine refuses with the same reason that the index shows, and the highest that serves is the default."""
    save(identity(), tmp_path, "echo", 1)
    save(newer_opset(), tmp_path, "echo", 2)
    repository = load(tmp_path, engine)
    reason = repository.find("echo", "2").reason
    values = np.ones((1, 4), np.float32)
    with pytest.raises(InferError, match="opset") as caught:
        infer(engine, "echo", values, "2")
    assert caught.value.code == status.UNAVAILABLE
    assert reason in caught.value.message
    assert repository.find("echo").version == 1
    assert infer(engine, "echo", values).size == 4


def test_load_with_thread_parameters_and_batches_serves_so(tmp_path, engine):
    """What the configuration says reaches the session and the engine."""
    config = """max_batch_size: 2
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        instance_group { count: 2 }"""
    save(identity(), tmp_path, "echo", config=config)
    repository = load(tmp_path, engine)
    assert repository.find_ready("echo").config.max_batch_size == 2
    with pytest.raises(InferError, match="2") as caught:
        infer(engine, "echo", np.ones((3, 4), np.float32))
    assert caught.value.code == status.INVALID


def test_load_chooses_batches_by_the_model_file(tmp_path, engine):
    """A model whose first dimension is no batch is run one request at a time."""
    save(identity(), tmp_path, "echo")
    save(column_sums(), tmp_path, "sums")
    repository = load(tmp_path, engine, default_max_batch_size=16)
    assert [repository.find_ready(name).config.max_batch_size for name in ("echo", "sums")] == [16, 0]


def test_find_models_of_missing_repository_says_so(tmp_path, engine):
    """There is nothing to go on with."""
    with pytest.raises(ModelFolderError, match="cannot be read"):
        Repository(tmp_path / "none", engine).find_models()


def test_subscribe_before_loading_hears_each_state(tmp_path, engine):
    """A version is LOADING, and refused as such, before it is READY."""
    save(identity(), tmp_path, "echo")
    repository = Repository(tmp_path, engine)
    seen = []
    repository.subscribe(lambda entry: seen.append((entry.version, entry.state, dict(engine.versions()))))
    repository.find_models()
    repository.load()
    assert seen == [
        (1, State.LOADING, {("echo", 1): "the model is loading"}),
        (1, State.READY, {("echo", 1): None}),
    ]


def test_subscribe_after_loading_hears_what_there_is(tmp_path, engine):
    """A late listener misses nothing."""
    save(identity(), tmp_path, "echo")
    repository = load(tmp_path, engine)
    seen = []
    repository.subscribe(seen.append)
    assert seen == repository.index()


def test_find_of_what_is_not_there_says_which(tmp_path, engine):
    """Unknown, unavailable and misspelt are three different errors."""
    save(newer_opset(), tmp_path, "newer", 3)
    repository = load(tmp_path, engine)
    with pytest.raises(NotFoundError, match="unknown model 'other'"):
        repository.find("other")
    with pytest.raises(NotFoundError, match="model 'newer' has no version 4"):
        repository.find("newer", "4")
    with pytest.raises(InvalidArgumentError, match="given nothing"):
        repository.find("")
    with pytest.raises(UnavailableError, match=r"model 'newer' version 3 is unavailable: .*opset"):
        repository.find_ready("newer")


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "one", " 1", "١", "9" * 19, ""])
def test_parse_version_of_what_is_no_number_refuses(text):
    """A version on the wire is a positive decimal number."""
    with pytest.raises(InvalidArgumentError, match="expected a positive whole number, given"):
        parse_version(text)


def test_load_with_unforeseen_error_keeps_its_detail_in_the_log(tmp_path, engine, caplog):
    """Callers hear no detail, and the other versions are tried."""

    class Refusing:
        """An engine whose load fails in a way that nobody foresaw."""

        def load(self, *arguments, **options):
            raise RuntimeError("the secret detail")

        def set_unavailable(self, name, version, reason):
            engine.set_unavailable(name, version, reason)

    save(identity(), tmp_path, "echo", 1)
    save(identity(), tmp_path, "echo", 2)
    repository = load(tmp_path, Refusing())
    assert {entry.reason for entry in repository.index()} == {"loading failed for a reason that the server's log has"}
    assert caplog.text.count("RuntimeError: the secret detail") == 2
