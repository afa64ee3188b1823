"""Lazy loading of ensembles: their steps are loaded with them, and stay in memory for as long as they do."""

import numpy as np
import pytest
from ensemble_folders import describe_chain, save_ensemble
from lazy_rig import LONG_S, await_true, check_own_rows, make_rig
from lifecycle_rig import infer, save_bytes

from kernels import status
from kernels.engine import InferError
from service.memory_budget import MemoryBudget
from service.repository import DORMANT, State
from service.repository_poll import RepositoryPoller
from tests.onnx_models import identity, save

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


def read_states(repository):
    """{name: (state, reason)}, of models of one version."""
    return {entry.name: (entry.state, entry.reason) for entry in repository.index()}


def save_models(folder, *names):
    """Models that give their rows back."""
    for name in names:
        save(identity(), folder, name)


def test_first_request_for_an_ensemble_loads_it_with_its_steps(tmp_path, engine, repository):
    """Those of ensembles within it too, and nothing else."""
    save_models(tmp_path, "a", "b", "other")
    save_ensemble(tmp_path, "outer", describe_chain("inner", "b"))
    save_ensemble(tmp_path, "inner", describe_chain("a", "a"))
    with make_rig(tmp_path, engine, repository) as rig:
        assert set(read_states(repository).values()) == {(State.READY, DORMANT)}
        assert rig.ask("outer", ROW).result(LONG_S).tolist() == ROW[0].tolist()
        assert rig.in_memory == {"outer", "inner", "a", "b"}
        assert read_states(repository) == {
            "other": (State.READY, DORMANT),
            **dict.fromkeys(("outer", "inner", "a", "b"), (State.READY, "")),
        }


def test_request_for_a_step_loads_it_alone(tmp_path, engine, repository):
    """The ensemble is loaded by a request of its own, and finds the step there."""
    save_models(tmp_path, "a", "b")
    save_ensemble(tmp_path, "chain", describe_chain("a", "b"))
    with make_rig(tmp_path, engine, repository) as rig:
        infer(engine, "a", ROW)
        assert rig.in_memory == {"a"}
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()
        assert rig.in_memory == {"chain", "a", "b"}
        assert engine.statistics("a", 1)["success"] == 2


def test_configuration_of_a_dormant_ensemble_is_read_without_loading_it(tmp_path, engine, repository):
    """And is what the loaded one says."""
    save_models(tmp_path, "a")
    save_ensemble(tmp_path, "chain", describe_chain("a"))
    with make_rig(tmp_path, engine, repository) as rig:
        before = repository.find_described("chain").config
        assert rig.in_memory == set()
        infer(engine, "chain", ROW)
        assert repository.find_described("chain").config == before


def test_steps_stay_in_memory_as_long_as_their_ensemble(tmp_path, engine, repository):
    """However little else is left to go; they go once it has gone."""
    save_models(tmp_path, "a", "b", "x", "y")
    save_ensemble(tmp_path, "chain", describe_chain("a", "b"))
    with make_rig(tmp_path, engine, repository) as rig:
        infer(engine, "chain", ROW)
        infer(engine, "x", ROW)
        budget = MemoryBudget(engine, rig.lifecycle, 4, measure=lambda: len(rig.in_memory))
        budget._before = 0
        assert not rig.lifecycle.rest("a")
        await_true(lambda: not engine.read_use()["chain"][1])
        infer(engine, "y", ROW)
        await_true(lambda: not engine.read_use()["y"][1])
        budget.make_room(keep="chain")
        assert rig.in_memory == {"chain", "a", "b", "y"}
        budget.budget_bytes = 1
        budget.make_room()
        assert rig.in_memory == {"y"}
        assert set(read_states(repository).values()) == {(State.READY, DORMANT), (State.READY, "")}
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()
        assert rig.in_memory == {"chain", "a", "b", "y"}


def test_ensembles_that_leave_memory_lose_no_request(tmp_path, engine, repository):
    """Callers in numbers of ensembles that share steps, and of the steps, with room for a few of them."""
    models = [f"model{number}" for number in range(6)]
    save_models(tmp_path, *models)
    ensembles = [f"chain{number}" for number in range(6)]
    for number, name in enumerate(ensembles):
        save_ensemble(tmp_path, name, describe_chain(models[number], models[(number + 1) % 6]))
    names = models + ensembles
    with make_rig(tmp_path, engine, repository, budget=4) as rig:
        check_own_rows(rig, names)


def test_ensemble_of_a_broken_step_is_refused_and_given_up(tmp_path, engine, repository):
    """Its callers hear why, and what else it consists of may leave memory."""
    save_models(tmp_path, "a")
    save_bytes(tmp_path, "broken", b"")
    save_ensemble(tmp_path, "chain", describe_chain("a", "broken"))
    with make_rig(tmp_path, engine, repository) as rig:
        for _ in range(3):
            with pytest.raises(InferError, match=r"its step 'broken' is unavailable: .*the file is empty") as caught:
                infer(engine, "chain", ROW)
            assert caught.value.code == status.UNAVAILABLE
        assert read_states(repository)["chain"][0] is State.UNAVAILABLE
        await_true(lambda: rig.in_memory == {"a"})
        await_true(lambda: rig.lifecycle.rest("a"))


def test_ensemble_of_a_broken_step_is_tried_again_with_it(tmp_path, engine, repository, monkeypatch):
    """After its pause, without a request."""
    monkeypatch.setattr("service.lazy_loading.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("service.lazy_loading.LOOK_S", 0.02)
    save_models(tmp_path, "a")
    save_bytes(tmp_path, "mended", b"")
    save_ensemble(tmp_path, "chain", describe_chain("a", "mended"))
    with make_rig(tmp_path, engine, repository):
        with pytest.raises(InferError, match="its step 'mended' is unavailable"):
            infer(engine, "chain", ROW)
        save_models(tmp_path, "mended")
        await_true(lambda: read_states(repository)["chain"] == (State.READY, ""))
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()


def test_pinned_ensemble_keeps_its_steps_in_memory_from_the_start(tmp_path, engine, repository):
    """Whatever the budget is."""
    save_models(tmp_path, "a", "b", "x")
    save_ensemble(tmp_path, "chain", describe_chain("a", "b"))
    with make_rig(tmp_path, engine, repository, budget=1, pinned=("chain",)) as rig:
        assert rig.in_memory == {"chain", "a", "b"}
        infer(engine, "x", ROW)
        assert rig.in_memory >= {"chain", "a", "b"}
        assert not rig.lifecycle.rest("a")


def test_step_that_comes_back_is_loaded_for_the_ensemble_that_waits_for_it(tmp_path, engine, repository):
    """With poll, a step whose folder has gone and is there again."""
    folder = tmp_path / "models"
    save_models(folder, "a", "b")
    save_ensemble(folder, "chain", describe_chain("a", "b"))
    with make_rig(folder, engine, repository) as rig:
        poller = RepositoryPoller(folder, rig.lifecycle, LONG_S)
        poller.remember()
        infer(engine, "chain", ROW)
        # An answer may come before its load is over, which would find the step gone.
        await_true(lambda: not rig.lifecycle.is_busy)
        (folder / "b").rename(tmp_path / "b")
        poller.look()
        poller.look()
        assert read_states(repository)["chain"] == (State.UNAVAILABLE, "its step 'b' is unknown")
        assert not rig.lifecycle.rest("chain")
        (tmp_path / "b").rename(folder / "b")
        poller.look()
        poller.look()
        assert set(read_states(repository).values()) == {(State.READY, "")}
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()


def test_changed_ensemble_that_is_in_memory_loads_its_new_steps(tmp_path, engine, repository):
    """With poll; what it has no longer may leave memory."""
    save_models(tmp_path, "a", "b")
    save_ensemble(tmp_path, "chain", describe_chain("a", "a"))
    with make_rig(tmp_path, engine, repository) as rig:
        poller = RepositoryPoller(tmp_path, rig.lifecycle, LONG_S)
        poller.remember()
        infer(engine, "chain", ROW)
        assert rig.in_memory == {"chain", "a"}
        save_ensemble(tmp_path, "chain", describe_chain("b", "b"))
        poller.look()
        poller.look()
        assert read_states(repository)["chain"] == (State.READY, "")
        assert rig.in_memory == {"chain", "a", "b"}
        assert rig.lifecycle.rest("a")
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()


def test_ensembles_that_contain_each_other_are_told_of_the_circle(tmp_path, engine, repository):
    """And not that a step is not in memory; what they contain beside each other may rest."""
    save_models(tmp_path, "a")
    save_ensemble(tmp_path, "one", describe_chain("a", "other"))
    save_ensemble(tmp_path, "other", describe_chain("one", "a"))
    save_ensemble(tmp_path, "outer", describe_chain("one"))
    with make_rig(tmp_path, engine, repository) as rig:
        for name, reason in {
            "one": r"ensembles contain each other: 'one' → 'other' → 'one'",
            "other": r"ensembles contain each other: 'other' → 'one' → 'other'",
            "outer": r"its step 'one' is unavailable: ensembles contain each other: 'one' → 'other' → 'one'",
        }.items():
            with pytest.raises(InferError, match=reason) as caught:
                infer(engine, name, ROW)
            assert caught.value.code == status.UNAVAILABLE
            assert read_states(repository)[name][0] is State.UNAVAILABLE
        await_true(lambda: rig.lifecycle.rest("a"))


def test_circle_that_a_change_opens_serves_again(tmp_path, engine, repository):
    """With poll, at the next request for the ensemble that was changed."""
    save_models(tmp_path, "a")
    save_ensemble(tmp_path, "one", describe_chain("a", "other"))
    save_ensemble(tmp_path, "other", describe_chain("one", "a"))
    with make_rig(tmp_path, engine, repository) as rig:
        poller = RepositoryPoller(tmp_path, rig.lifecycle, LONG_S)
        poller.remember()
        with pytest.raises(InferError, match="contain each other"):
            infer(engine, "other", ROW)
        save_ensemble(tmp_path, "other", describe_chain("a", "a"))
        poller.look()
        poller.look()
        assert infer(engine, "other", ROW).tolist() == ROW[0].tolist()


@pytest.mark.parametrize("inner", ["mended", "inner"])
def test_broken_step_of_a_pinned_ensemble_is_tried_again(tmp_path, engine, repository, monkeypatch, inner):
    """Without a request or a look at the files, of the ensemble's own steps and of those within them."""
    monkeypatch.setattr("service.lazy_loading.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("service.lazy_loading.LOOK_S", 0.02)
    save_models(tmp_path, "a")
    save_bytes(tmp_path, "mended", b"")
    save_ensemble(tmp_path, "inner", describe_chain("mended", "a"))
    save_ensemble(tmp_path, "chain", describe_chain("a", inner))
    with make_rig(tmp_path, engine, repository, pinned=("chain",)):
        assert read_states(repository)["chain"][0] is State.UNAVAILABLE
        assert f"its step '{inner}' is unavailable" in read_states(repository)["chain"][1]
        save_models(tmp_path, "mended")
        await_true(lambda: read_states(repository)["chain"] == (State.READY, ""))
        assert infer(engine, "chain", ROW).tolist() == ROW[0].tolist()
