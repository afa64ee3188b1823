"""Warm-up: what the configuration asks for is run before anybody can call, counted for nobody, and must succeed."""

import numpy as np
import pytest

from kernels.engine import Engine
from service.lifecycle import Lifecycle, LoadError
from service.pb import open_inference_pb2 as pb
from service.repository import Repository, State
from service.version_loader import VersionLoader
from tests.onnx_models import ELEMENT_TYPES, identity, picker, save, scalar_doubler


class Recorder:
    """An engine that notes what it was asked to run, and when nobody could call yet."""

    def __init__(self, engine):
        self._engine = engine
        self.runs = []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def infer(self, message, *, target):
        """Run it, and keep the request and the reply."""
        assert not [key for key, reason in self._engine.versions().items() if reason is None]
        reply = pb.ModelInferResponse.FromString(self._engine.infer(message, target=target))
        self.runs.append((pb.ModelInferRequest.FromString(message), reply))


@pytest.fixture
def engine():
    """An engine whose warm-up runs are kept."""
    engine = Engine(workers=1)
    yield Recorder(engine)
    engine.close()


@pytest.fixture
def load(tmp_path, engine):
    """Load one model with a warm-up, and return its state."""

    def load_model(model, warmup, config="max_batch_size: 8"):
        save(model, tmp_path, "warm", config=f"{config} {warmup}")
        repository = Repository()
        lifecycle = Lifecycle(tmp_path, engine, repository)
        lifecycle.find_models()
        lifecycle.load("warm")
        return repository.find("warm").state

    return load_model


def entry(inputs, more=""):
    """One model_warmup of one input."""
    return f'model_warmup {{ name: "first" inputs {{ key: "input" value {{ {inputs} }} }} {more} }}'


def content_of(run):
    """The one input of a run, as NumPy sees it."""
    request, _ = run
    return np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)


def test_warmup_runs_as_often_and_as_large_as_asked_before_anybody_can_call(load, engine):
    """Zeros, three rows, five times; and none of it is in the statistics."""
    given = entry("data_type: TYPE_FP32 dims: 4 zero_data: true", "batch_size: 3 count: 5")
    assert load(identity(), given) is State.READY
    assert len(engine.runs) == 5
    for run in engine.runs:
        assert np.array_equal(content_of(run), np.zeros((3, 4)))
        assert run[1].outputs[0].shape == [3, 4]
    counts = engine.statistics("warm", 1)
    assert (counts["success"], counts["executions"], counts["rows"]) == (0, 0, 0)


def test_warmup_without_batch_size_or_count_is_one_row_once(load, engine):
    """Triton's defaults."""
    load(identity(), entry("data_type: TYPE_FP32 dims: 4 zero_data: true"))
    (run,) = engine.runs
    assert content_of(run).shape == (1, 4)


def test_warmup_of_model_without_batches_has_no_batch_dimension(load, engine):
    """Dims are the whole shape, of a scalar none at all."""
    load(scalar_doubler(), entry("data_type: TYPE_FP32 random_data: true"), "max_batch_size: 0")
    (run,) = engine.runs
    assert content_of(run).shape == ()


def test_warmup_at_random_is_the_same_at_every_start(load, engine):
    """Floats from 0 to 1; who fails on them fails each time."""
    given = entry("data_type: TYPE_FP32 dims: 4 random_data: true", "batch_size: 2")
    load(identity(), given + given)
    first, second = map(content_of, engine.runs)
    assert np.array_equal(first, second)
    assert len(set(first.ravel())) == 8
    assert first.min() >= 0
    assert first.max() < 1


@pytest.mark.parametrize("source", ["zero_data: true", "random_data: true"])
@pytest.mark.parametrize("datatype", ELEMENT_TYPES)
def test_warmup_of_every_datatype_runs(load, engine, datatype, source):
    """What is made up is always a valid tensor."""
    word = {"BYTES": "STRING"}.get(datatype, datatype)
    given = entry(f"data_type: TYPE_{word} dims: 4 {source}", "batch_size: 2")
    assert load(identity(ELEMENT_TYPES[datatype]), given) is State.READY
    assert len(engine.runs) == 1


def test_warmup_from_file_repeats_its_row(load, engine, tmp_path):
    """The file is in the folder warmup of the model and holds one row as requests carry it."""
    row = np.arange(4, dtype=np.float32)
    (tmp_path / "warm" / "warmup").mkdir(parents=True)
    (tmp_path / "warm" / "warmup" / "row").write_bytes(row.tobytes())
    load(identity(), entry('data_type: TYPE_FP32 dims: 4 input_data_file: "row"', "batch_size: 3"))
    (run,) = engine.runs
    assert np.array_equal(content_of(run), np.tile(row, (3, 1)))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (entry("data_type: TYPE_FP32 dims: 4"), r"inputs\['input'\]: expected one of zero_data, random_data"),
        (entry("data_type: TYPE_INT8 dims: 4 zero_data: true"), "data_type: expected TYPE_FP32, as in the model"),
        (entry("data_type: TYPE_FP32 dims: -1 zero_data: true"), "dims: expected numbers of at least 0"),
        (entry("data_type: TYPE_FP32 dims: 5 zero_data: true"), "model_warmup 'first': input 'input' has the wrong"),
        (entry("data_type: TYPE_FP32 dims: [ 4294967296, 4294967296 ] zero_data: true"), "dims: expected at most"),
        (entry("data_type: TYPE_FP32 dims: 4 zero_data: true", "batch_size: 9"), "batch_size: expected at most 8"),
        (entry("data_type: TYPE_FP32 dims: 4 zero_data: true", "count: 100001"), "count: expected at most 100000"),
        ("model_warmup {}", "model_warmup '0': input 'input' is missing"),
        (
            entry("data_type: TYPE_FP32 dims: 4 zero_data: true").replace('"input"', '"other"'),
            "expected inputs of the model, given 'other'",
        ),
        (entry('data_type: TYPE_FP32 dims: 4 input_data_file: "none"'), "warmup is missing"),
    ],
)
def test_warmup_that_does_not_fit_refuses_the_load(load, given, reason):
    """What was meant to make sure that the model runs has not done so."""
    with pytest.raises(LoadError, match=reason):
        load(identity(), given)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("short", "expected 16 bytes, given 15 in short"), ("../config.pbtxt", "leads out of its folder")],
)
def test_warmup_from_file_that_does_not_fit_refuses_the_load(load, tmp_path, name, reason):
    """Of another size, or not the model's own."""
    (tmp_path / "warm" / "warmup").mkdir(parents=True)
    (tmp_path / "warm" / "warmup" / "short").write_bytes(bytes(15))
    with pytest.raises(LoadError, match=reason):
        load(identity(), entry(f'data_type: TYPE_FP32 dims: 4 input_data_file: "{name}"'))


def test_warmup_that_fails_in_the_model_refuses_the_load_and_frees_it(load, engine, tmp_path):
    """An index out of the model's table; the engine holds nothing of it any more."""
    (tmp_path / "warm" / "warmup").mkdir(parents=True)
    (tmp_path / "warm" / "warmup" / "index").write_bytes((99).to_bytes(8, "little"))
    given = entry('data_type: TYPE_INT64 input_data_file: "index"').replace('"input"', '"index"')
    with pytest.raises(LoadError, match=r"model_warmup 'first': .*indices element out of data bounds"):
        load(picker(), given)
    assert engine.versions()["warm", 1].startswith("model_warmup 'first'")


def test_warmup_of_a_changed_data_file_is_run_again(tmp_path, engine):
    """The data belong to what a version is made of."""
    folder = tmp_path / "warm" / "warmup"
    folder.mkdir(parents=True)
    (folder / "row").write_bytes(bytes(16))
    save(identity(), tmp_path, "warm", config=entry('data_type: TYPE_FP32 dims: 4 input_data_file: "row"'))
    lifecycle = Lifecycle(tmp_path, engine._engine, Repository())
    runs = []
    lifecycle._loader = VersionLoader(engine._engine, 8)
    prepare = lifecycle._loader.prepare
    lifecycle._loader.prepare = lambda plan, version: (runs.append(version), prepare(plan, version))[1]
    lifecycle.load("warm")
    lifecycle.load("warm")
    (folder / "row").write_bytes(bytes(15) + b"\x01")
    lifecycle.load("warm")
    assert runs == [1, 1]
