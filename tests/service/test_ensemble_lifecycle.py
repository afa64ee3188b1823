"""Ensembles as they come and go: READY when their steps are, whatever comes first."""

import json

import numpy as np
import pytest
from ensemble_folders import describe_chain, save_ensemble
from lifecycle_rig import infer

from kernels import status
from kernels.engine import InferError
from service.lifecycle import LoadError
from service.model_override import ModelOverride
from service.repository import State
from tests.onnx_models import identity, newer_opset, save, tiny

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
TWICE = describe_chain("echo", "echo")


def read_states(repository):
    """{name: (state, reason)}, of models of one version."""
    return {entry.name: (entry.state, entry.reason) for entry in repository.index()}


@pytest.fixture
def explicit(tmp_path, lifecycle, repository):
    """A lifecycle that has found what there is and has loaded none of it."""

    def find():
        lifecycle.find_models(lambda name: False)
        return repository

    return find


def test_start_loads_ensembles_with_their_steps_whatever_their_names(tmp_path, engine, load_all):
    """Also such within others."""
    save_ensemble(tmp_path, "a_outer", describe_chain("b_inner", "echo"))
    save_ensemble(tmp_path, "b_inner", TWICE)
    save(identity(), tmp_path, "echo")
    repository = load_all()
    assert set(read_states(repository).values()) == {(State.READY, "")}
    assert np.array_equal(infer(engine, "a_outer", ROWS), ROWS.ravel())
    config = repository.find_ready("a_outer").config
    assert (config.max_batch_size, config.proto.platform) == (8, "ensemble")


def test_start_with_a_broken_step_says_so_and_why(tmp_path, engine, load_all, caplog):
    """Everything else serves, and the step was tried once."""
    save_ensemble(tmp_path, "chain", describe_chain("echo", "newer"))
    save_ensemble(tmp_path, "lonely", describe_chain("nobody"))
    save_ensemble(tmp_path, "twice", TWICE)
    save(identity(), tmp_path, "echo")
    save(newer_opset(), tmp_path, "newer")
    states = read_states(load_all())
    assert states["twice"] == states["echo"] == (State.READY, "")
    assert states["lonely"] == (State.UNAVAILABLE, "its step 'nobody' is unknown")
    state, reason = states["chain"]
    assert state is State.UNAVAILABLE
    assert reason == f"its step 'newer' is unavailable: {states['newer'][1]}"
    with pytest.raises(InferError, match="opset") as caught:
        infer(engine, "chain", ROWS)
    assert caught.value.code == status.UNAVAILABLE
    logged = [record for record in caplog.records if record.__dict__.get("model") == "newer"]
    assert [record.state for record in logged if record.state == "UNAVAILABLE"] == ["UNAVAILABLE"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (describe_chain("echo", "tiny"), "has shape [-1, 4]; expected [-1, 16]"),
        (describe_chain("chain"), "ensembles contain each other: 'chain' → 'chain'"),
        (describe_chain("echo", max_batch_size=999), "its max_batch_size is 999, and that of its step 'echo' is 64"),
        (TWICE.replace('value: "output"', 'value: "between_1"'), "tensor 'between_1' is made twice"),
        (TWICE.replace('value: "between_1"', 'value: "x"', 1), "step 'echo' reads tensor 'between_1', which nobody"),
    ],
)
def test_load_of_a_graph_that_does_not_fit_fails_with_the_reason(tmp_path, lifecycle, explicit, config, reason):
    """The index has the same."""
    save(identity(), tmp_path, "echo")
    save(tiny(), tmp_path, "tiny")
    save_ensemble(tmp_path, "chain", config)
    repository = explicit()
    with pytest.raises(LoadError) as failure:
        lifecycle.load("chain")
    assert reason in str(failure.value)
    state, said = read_states(repository)["chain"]
    assert state is State.UNAVAILABLE
    assert reason in said


def test_load_of_an_ensemble_loads_its_steps(tmp_path, engine, lifecycle, explicit):
    """As Triton does; models that it has not are left alone."""
    save(identity(), tmp_path, "echo")
    save(tiny(), tmp_path, "tiny")
    save_ensemble(tmp_path, "chain", TWICE)
    save_ensemble(tmp_path, "outer", describe_chain("chain"))
    repository = explicit()
    lifecycle.load("outer")
    assert {name: state for name, (state, _) in read_states(repository).items()} == {
        "chain": State.READY,
        "echo": State.READY,
        "outer": State.READY,
        "tiny": State.UNAVAILABLE,
    }
    assert np.array_equal(infer(engine, "outer", ROWS), ROWS.ravel())


def test_load_of_an_ensemble_loads_steps_that_have_come_since(tmp_path, lifecycle, explicit):
    """Of which nobody has heard yet."""
    repository = explicit()
    save(identity(), tmp_path, "echo")
    save_ensemble(tmp_path, "chain", TWICE)
    lifecycle.load("chain")
    assert read_states(repository) == {"chain": (State.READY, ""), "echo": (State.READY, "")}


def test_unload_of_a_step_makes_ensembles_unavailable_until_it_is_back(tmp_path, engine, lifecycle, load_all):
    """Without loading them again."""
    save(identity(), tmp_path, "echo")
    save_ensemble(tmp_path, "chain", TWICE)
    save_ensemble(tmp_path, "outer", describe_chain("chain"))
    repository = load_all()
    lifecycle.unload("echo")
    states = read_states(repository)
    assert states["chain"] == (State.UNAVAILABLE, "its step 'echo' is unavailable: unloaded")
    assert states["outer"][1] == "its step 'chain' is unavailable: its step 'echo' is unavailable: unloaded"
    assert repository.find("chain").config is None
    lifecycle.load("echo")
    assert set(read_states(repository).values()) == {(State.READY, "")}
    assert np.array_equal(infer(engine, "outer", ROWS), ROWS.ravel())


def test_ensemble_that_waits_for_a_step_serves_once_it_is_there(tmp_path, engine, lifecycle, explicit):
    """The load fails meanwhile, and is not needed again."""
    save_ensemble(tmp_path, "chain", TWICE)
    repository = explicit()
    with pytest.raises(LoadError, match="version 1: its step 'echo' is unknown"):
        lifecycle.load("chain")
    save(identity(), tmp_path, "echo")
    lifecycle.load("echo")
    assert read_states(repository)["chain"] == (State.READY, "")
    assert np.array_equal(infer(engine, "chain", ROWS), ROWS.ravel())


def test_load_of_a_waiting_ensemble_again_says_why_it_waits(tmp_path, lifecycle, explicit):
    """Nothing of it has changed, so that there is nothing to load."""
    save_ensemble(tmp_path, "chain", TWICE)
    repository = explicit()
    for _ in range(2):
        with pytest.raises(LoadError, match="version 1: its step 'echo' is unknown"):
            lifecycle.load("chain")
    assert read_states(repository)["chain"] == (State.UNAVAILABLE, "its step 'echo' is unknown")


def test_new_edition_that_does_not_fit_leaves_the_old_one_serving(tmp_path, engine, lifecycle, load_all):
    """As of any model; READY says why it is not the newest."""
    save(identity(), tmp_path, "echo")
    save(tiny(), tmp_path, "tiny")
    save_ensemble(tmp_path, "chain", TWICE)
    repository = load_all()
    save_ensemble(tmp_path, "chain", describe_chain("tiny"))
    with pytest.raises(LoadError, match=r"expected \[-1, 16\]"):
        lifecycle.load("chain")
    state, reason = read_states(repository)["chain"]
    assert state is State.READY
    assert "serves what was loaded before" in reason
    assert np.array_equal(infer(engine, "chain", ROWS), ROWS.ravel())
    save_ensemble(tmp_path, "chain", describe_chain("echo"))
    lifecycle.load("chain")
    assert read_states(repository)["chain"] == (State.READY, "")


def test_change_of_a_step_that_no_longer_fits_makes_the_ensemble_unavailable(tmp_path, lifecycle, load_all):
    """The model itself is loaded: nobody is to be kept from that by an ensemble."""
    save(identity(), tmp_path, "echo")
    save_ensemble(tmp_path, "chain", TWICE)
    repository = load_all()
    save(identity(shape=("batch", 5)), tmp_path, "echo")
    lifecycle.load("echo")
    states = read_states(repository)
    assert states["echo"] == (State.READY, "")
    assert "has shape [-1, 4]; expected [-1, 5]" in states["chain"][1]


def test_unload_with_steps_leaves_those_of_other_ensembles(tmp_path, lifecycle, load_all):
    """Triton's unload_dependents; without it the steps stay."""
    for name in ("echo", "own", "inmost"):
        save(identity(), tmp_path, name)
    save_ensemble(tmp_path, "inner", describe_chain("inmost"))
    save_ensemble(tmp_path, "chain", describe_chain("echo", "own", "inner"))
    save_ensemble(tmp_path, "other", TWICE)
    repository = load_all()
    lifecycle.unload("chain", with_steps=True)
    unloaded = {name for name, (state, _) in read_states(repository).items() if state is State.UNAVAILABLE}
    assert unloaded == {"chain", "own", "inner", "inmost"}
    lifecycle.unload("other")
    assert read_states(repository)["echo"][0] is State.READY


def test_ensembles_have_versions_and_labels(tmp_path, engine, load_all):
    """As models have."""
    labels = 'parameters { key: "version_labels" value { string_value: "stable=2" } }'
    policy = "version_policy { latest { num_versions: 2 } }"
    save(identity(), tmp_path, "echo")
    for version in (1, 2, 3):
        save_ensemble(tmp_path, "chain", describe_chain("echo", more=labels + policy), version)
    repository = load_all()
    assert [entry.version for entry in repository.list_versions("chain")] == [2, 3]
    assert np.array_equal(infer(engine, "chain", ROWS, "stable"), ROWS.ravel())


def test_override_loads_an_ensemble_that_the_repository_has_otherwise(tmp_path, engine, lifecycle, load_all):
    """By JSON; the next load takes the file again."""
    save(identity(), tmp_path, "echo")
    save_ensemble(tmp_path, "chain", TWICE)
    repository = load_all()
    step = {"model_name": "echo", "model_version": -1, "input_map": {"input": "x"}, "output_map": {"output": "y"}}
    config = {
        field: [{"name": name, "data_type": "TYPE_FP32", "dims": [4]}]
        for field, name in (("input", "x"), ("output", "y"))
    }
    text = json.dumps(config | {"max_batch_size": 8, "ensemble_scheduling": {"step": [step]}})
    lifecycle.load("chain", ModelOverride(text))
    assert [spec.name for spec in repository.find_ready("chain").config.inputs] == ["x"]
    lifecycle.load("chain")
    assert [spec.name for spec in repository.find_ready("chain").config.inputs] == ["input"]
