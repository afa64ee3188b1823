"""service.lazy_loading: a model is loaded once, by its first request, and its callers hear what became of that."""

import threading

import numpy as np
import pytest
from lazy_rig import CALLERS, LONG_S, LazyRig, await_true, make_rig
from lifecycle_rig import infer, save_bytes

from kernels import status
from kernels.engine import InferError
from service.lazy_loading import FIRST_PAUSE_S, LONGEST_PAUSE_S, FailedLoads
from service.repository import DORMANT, State
from service.repository_poll import RepositoryPoller
from service.status import UnavailableError
from service.version_loader import VersionLoader
from tests.onnx_models import identity, newer_opset, save, tiny

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
ONE = np.ones((1, 16), np.float32)
LABELS = 'parameters { key: "version_labels" value { string_value: "stable=1" } }'


@pytest.fixture
def loads(monkeypatch):
    """Which versions were loaded, in that order, failures among them; a load waits while `held` is clear."""
    seen, held, prepare = [], threading.Event(), VersionLoader.prepare
    held.set()

    def note(self, plan, version):
        seen.append((plan.folder.name, version))
        assert held.wait(LONG_S)
        return prepare(self, plan, version)

    monkeypatch.setattr(VersionLoader, "prepare", note)
    note.seen, note.held = seen, held
    return note


def describe(repository, name):
    """State and reason by version."""
    return {entry.version: (entry.state, entry.reason) for entry in repository.list_versions(name)}


def test_models_are_known_and_ready_before_anybody_asks(tmp_path, engine, repository, loads):
    """Every version and label, without a load; what never could be loaded says so at once."""
    for version in (1, 2):
        save(identity(), tmp_path, "echo", version, config=LABELS)
    save(identity(), tmp_path, "unread", config="dynamic_batching {} sequence_batching {}")
    with make_rig(tmp_path, engine, repository) as rig:
        assert describe(repository, "echo") == dict.fromkeys((1, 2), (State.READY, DORMANT))
        assert repository.find_ready("echo", "stable").version == 1
        state, reason = describe(repository, "unread")[1]
        assert state is State.UNAVAILABLE
        assert "sequence_batching" in reason
        assert (loads.seen, rig.in_memory) == ([], set())


@pytest.mark.parametrize(("version", "served"), [("", 2), ("1", 1), ("stable", 1)])
def test_first_request_loads_its_model(tmp_path, engine, repository, loads, version, served):
    """All versions of it, whichever it asks for; the next one finds it there."""
    for number in (1, 2):
        save(tiny(seed=number), tmp_path, "tiny", number, config=LABELS)
    save(identity(), tmp_path, "echo")
    with make_rig(tmp_path, engine, repository) as rig:
        given = rig.ask("tiny", ONE, version).result(LONG_S)
        assert loads.seen == [("tiny", 1), ("tiny", 2)]
        assert np.array_equal(given, infer(engine, "tiny", ONE, str(served)))
        assert describe(repository, "tiny") == dict.fromkeys((1, 2), (State.READY, ""))
        assert (len(loads.seen), rig.in_memory) == (2, {"tiny"})


def test_callers_at_one_time_wait_for_one_load(tmp_path, engine, repository, loads):
    """Each gets its own rows; the index says READY all the while."""
    save(identity(), tmp_path, "echo")
    with make_rig(tmp_path, engine, repository) as rig:
        loads.held.clear()
        asked = {value: rig.ask("echo", np.full((1, 4), value, np.float32)) for value in range(CALLERS)}
        await_true(lambda: loads.seen)
        assert describe(repository, "echo") == {1: (State.READY, DORMANT)}
        assert not any(call.done() for call in asked.values())
        loads.held.set()
        assert {value: call.result(LONG_S).tolist() for value, call in asked.items()} == {
            value: [value] * 4 for value in range(CALLERS)
        }
        assert loads.seen == [("echo", 1)]


def test_load_of_one_model_does_not_wait_for_that_of_another(tmp_path, engine, repository, loads):
    """Nor do requests for what is in memory."""
    for name in ("a", "b", "c"):
        save(identity(), tmp_path, name)
    with make_rig(tmp_path, engine, repository) as rig:
        rig.ask("a", ROW).result(LONG_S)
        loads.held.clear()
        asked = [rig.ask(name, ROW) for name in ("b", "c")]
        await_true(lambda: len(loads.seen) == 3)
        assert rig.ask("a", ROW).result(LONG_S).tolist() == ROW[0].tolist()
        loads.held.set()
        assert [call.result(LONG_S).tolist() for call in asked] == [ROW[0].tolist()] * 2


def test_failed_load_tells_all_callers_why_and_is_not_tried_for_the_next(tmp_path, engine, repository, loads):
    """They hear the reason, as does the index; requests that come then do not cost a load each."""
    save_bytes(tmp_path, "broken", b"this is no model at all")
    with make_rig(tmp_path, engine, repository) as rig:
        loads.held.clear()
        asked = [rig.ask("broken", ROW) for _ in range(4)]
        await_true(lambda: loads.seen)
        loads.held.set()
        for call in asked:
            with pytest.raises(InferError, match="not ONNX or is cut off") as caught:
                call.result(LONG_S)
            assert caught.value.code == status.UNAVAILABLE
        [(state, reason)] = describe(repository, "broken").values()
        assert state is State.UNAVAILABLE
        assert "not ONNX" in reason
        for _ in range(20):
            with pytest.raises(InferError, match="not ONNX or is cut off"):
                infer(engine, "broken", ROW)
        assert loads.seen == [("broken", 1)]
        assert rig.in_memory == set()


def test_failed_load_is_tried_again_after_its_pause(tmp_path, engine, repository, loads, monkeypatch):
    """What was wrong for a while alone heals by itself."""
    monkeypatch.setattr("service.lazy_loading.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("service.lazy_loading.LOOK_S", 0.02)
    save_bytes(tmp_path, "echo", b"")
    with make_rig(tmp_path, engine, repository):
        with pytest.raises(InferError, match="the file is empty"):
            infer(engine, "echo", ROW)
        save(identity(), tmp_path, "echo")
        await_true(lambda: describe(repository, "echo") == {1: (State.READY, "")})
        assert infer(engine, "echo", ROW).tolist() == ROW[0].tolist()


def test_load_of_which_one_version_fails_serves_the_others(tmp_path, engine, repository):
    """Whoever asked for the broken one hears why."""
    save(identity(), tmp_path, "echo", 1)
    save(newer_opset(), tmp_path, "echo", 2)
    with make_rig(tmp_path, engine, repository) as rig:
        good, bad, any_of_them = (rig.ask("echo", ROW, version) for version in ("1", "2", ""))
        assert good.result(LONG_S).tolist() == any_of_them.result(LONG_S).tolist() == ROW[0].tolist()
        with pytest.raises(InferError, match="opset"):
            bad.result(LONG_S)


def test_model_whose_folder_has_gone_is_unknown_to_its_callers(tmp_path, engine, repository):
    """The first one finds out."""
    path = save(identity(), tmp_path, "echo")
    with make_rig(tmp_path, engine, repository):
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        with pytest.raises(InferError, match="unknown model: 'echo'") as caught:
            infer(engine, "echo", ROW)
        assert caught.value.code == status.NOT_FOUND
        assert repository.names() == set()


def test_repository_that_cannot_be_read_fails_no_more_than_its_requests(tmp_path, engine, repository):
    """They hear so at once, and do not wait for ever."""
    folder = tmp_path / "models"
    save(identity(), folder, "echo")
    with make_rig(folder, engine, repository):
        folder.rename(tmp_path / "away")
        with pytest.raises(InferError, match="cannot be read") as caught:
            infer(engine, "echo", ROW)
        assert caught.value.code == status.UNAVAILABLE


def test_unforeseen_failure_is_told_without_its_detail(tmp_path, engine, repository, monkeypatch, caplog):
    """Nobody waits for ever for a fault of ours."""

    def fail(self, plan):
        raise RuntimeError("the secret detail")

    save(identity(), tmp_path, "echo")
    with make_rig(tmp_path, engine, repository):
        monkeypatch.setattr("service.lazy_lifecycle.LazyLifecycle._bring_up", fail)
        with pytest.raises(InferError, match="loading failed for a reason that the server's log has") as caught:
            infer(engine, "echo", ROW)
        assert caught.value.code == status.UNAVAILABLE
    assert "RuntimeError: the secret detail" in caplog.text


def test_pinned_models_are_loaded_at_the_start(tmp_path, engine, repository, loads):
    """The others are not."""
    for name in ("a", "b"):
        save(identity(), tmp_path, name)
    with make_rig(tmp_path, engine, repository, pinned=("a",)) as rig:
        assert rig.in_memory == {"a"}
        assert loads.seen == [("a", 1)]


def test_stop_refuses_what_waits_for_a_load(tmp_path, engine, repository, loads):
    """And does not wait for the load itself."""
    save(identity(), tmp_path, "echo")
    rig = LazyRig(tmp_path, engine, repository)
    rig.start()
    loads.held.clear()
    asked = rig.ask("echo", ROW)
    await_true(lambda: loads.seen)
    rig.lifecycle.stop_loading()
    rig.lazy.stop()
    with pytest.raises(InferError, match="the server is stopping") as caught:
        asked.result(LONG_S)
    assert caught.value.code == status.UNAVAILABLE
    loads.held.set()
    rig.close()


def test_poll_follows_a_model_that_is_not_in_memory_without_loading_it(tmp_path, engine, repository, loads):
    """New versions are there for the next request; of a model in memory they are loaded."""
    save(identity(), tmp_path, "echo", 1)
    with make_rig(tmp_path, engine, repository) as rig:
        poller = RepositoryPoller(tmp_path, rig.lifecycle, LONG_S)
        poller.remember()
        save(identity(), tmp_path, "echo", 2)
        save(identity(), tmp_path, "new", 1)
        poller.look()
        poller.look()
        assert describe(repository, "echo") == dict.fromkeys((1, 2), (State.READY, DORMANT))
        assert describe(repository, "new") == {1: (State.READY, DORMANT)}
        assert loads.seen == []
        infer(engine, "echo", ROW, "2")
        save(identity(), tmp_path, "echo", 3)
        poller.look()
        poller.look()
        assert describe(repository, "echo")[3] == (State.READY, "")
        assert ("echo", 3) in loads.seen


def test_poll_takes_a_dormant_model_away_with_its_folder(tmp_path, engine, repository):
    """Requests for it hear that it is unknown."""
    path = save(identity(), tmp_path, "echo")
    with make_rig(tmp_path, engine, repository) as rig:
        poller = RepositoryPoller(tmp_path, rig.lifecycle, LONG_S)
        poller.remember()
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        poller.look()
        poller.look()
        with pytest.raises(InferError, match="unknown"):
            infer(engine, "echo", ROW)


def test_failed_model_that_the_poll_finds_mended_waits_for_a_request(tmp_path, engine, repository, loads):
    """It is not tried again in vain meanwhile."""
    save_bytes(tmp_path, "echo", b"")
    with make_rig(tmp_path, engine, repository) as rig:
        poller = RepositoryPoller(tmp_path, rig.lifecycle, LONG_S)
        poller.remember()
        with pytest.raises(InferError):
            infer(engine, "echo", ROW)
        save(identity(), tmp_path, "echo")
        poller.look()
        poller.look()
        assert describe(repository, "echo") == {1: (State.READY, DORMANT)}
        assert infer(engine, "echo", ROW).tolist() == ROW[0].tolist()
        assert len(loads.seen) == 2


# ---- configuration


def test_configuration_of_a_dormant_model_is_read_without_loading_it(tmp_path, engine, repository, loads):
    """And is what the loaded one says."""
    config = 'max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 50 } input { name: "input" dims: 16 }'
    save(tiny(), tmp_path, "tiny", config=config)
    with make_rig(tmp_path, engine, repository):
        before = repository.find_described("tiny")
        assert repository.find_described("tiny") is repository.find_ready("tiny")
        assert loads.seen == []
        infer(engine, "tiny", ONE)
        after = repository.find_described("tiny")
        assert not after.is_dormant
        assert before.config == after.config


def test_configuration_that_the_file_does_not_say_is_got_by_loading(tmp_path, engine, repository, loads):
    """An output without a shape."""
    model = identity()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    save(model, tmp_path, "echo")
    with make_rig(tmp_path, engine, repository):
        assert repository.find_described("echo").config.outputs[0].shape == (-1, 4)
        assert loads.seen == [("echo", 1)]


def test_configuration_of_a_dormant_model_that_is_broken_says_why(tmp_path, engine, repository):
    """As a request would hear."""
    save_bytes(tmp_path, "broken", b"this is no model at all")
    save(identity(), tmp_path, "contradicted", config='input { name: "input" data_type: TYPE_INT8 }')
    with make_rig(tmp_path, engine, repository):
        with pytest.raises(UnavailableError, match="not ONNX"):
            repository.find_described("broken")
        with pytest.raises(UnavailableError, match="expected TYPE_FP32"):
            repository.find_described("contradicted", "1")


# ---- failures


def test_failed_loads_are_due_after_pauses_that_double():
    """Up to the longest one, each once a pause; a success begins anew."""
    now = [0.0]
    failures = FailedLoads(lambda: now[0])
    failures.note("a")
    pauses = []
    while not pauses or pauses[-1] < LONGEST_PAUSE_S:
        begun = now[0]
        while failures.take_due() is None:
            now[0] += 1.0
        assert failures.take_due() is None
        pauses.append(now[0] - begun)
        failures.note("a")
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    failures.forget("a")
    now[0] += 10 * LONGEST_PAUSE_S
    assert failures.take_due() is None


def test_callers_are_answered_when_a_load_cannot_even_begin(tmp_path, engine, repository, monkeypatch, caplog):
    """A fault of ours, which the log has; it is tried again after a pause, as any load that failed."""

    def fail(self, *arguments, **options):
        raise RuntimeError("the secret detail")

    save(identity(), tmp_path, "echo")
    monkeypatch.setattr("service.lazy_loading.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("service.lazy_loading.LOOK_S", 0.02)
    with make_rig(tmp_path, engine, repository) as rig:
        with monkeypatch.context() as broken:
            broken.setattr("service.memory_budget.MemoryBudget.make_room", fail)
            with pytest.raises(InferError, match="loading failed for a reason that the server's log has"):
                rig.ask("echo", ROW).result(LONG_S)
        await_true(lambda: describe(repository, "echo") == {1: (State.READY, "")})
    assert "RuntimeError: the secret detail" in caplog.text
