"""The lifecycle while it serves: what changes is taken up, what cannot be loaded leaves the rest as it was."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from lifecycle_rig import infer, save_bytes

from kernels import status
from kernels.engine import InferError
from service.lifecycle import LoadError
from service.repository import UNLOADED, State
from service.status import NotFoundError, UnavailableError
from tests.onnx_models import identity, newer_opset, save, slow, tiny


def write_config(folder, name, text):
    """Write a model's configuration, or write it anew."""
    (folder / name / "config.pbtxt").write_text(text)


def states(repository, name):
    """State by version."""
    return {entry.version: entry.state.value for entry in repository.list_versions(name)}


ONE = np.ones((1, 16), np.float32)
ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [1, 2, 10]),
        ("version_policy { all {} }", [1, 2, 10]),
        ("version_policy { latest {} }", [10]),
        ("version_policy { latest { num_versions: 2 } }", [2, 10]),
        ("version_policy { latest { num_versions: 9 } }", [1, 2, 10]),
        ("version_policy { specific { versions: [ 2, 1 ] } }", [1, 2]),
    ],
)
def test_load_with_version_policy_serves_the_chosen_ones(tmp_path, engine, load_all, policy, served):
    """The others are unknown, and not even read."""
    for version in (1, 2, 10):
        save(identity(), tmp_path, "echo", version, config=policy)
    repository = load_all()
    assert states(repository, "echo") == dict.fromkeys(served, "READY")
    assert sorted(engine.versions()) == [("echo", version) for version in served]


def test_load_with_policy_that_names_what_is_not_there_reports_it(tmp_path, load_all):
    """The versions that are there serve."""
    save(identity(), tmp_path, "echo", 1, config="version_policy { specific { versions: [ 1, 7 ] } }")
    repository = load_all()
    assert states(repository, "echo") == {1: "READY", 7: "UNAVAILABLE"}
    assert repository.find("echo", "7").reason == "7 is missing"


def test_load_with_default_model_filename_takes_that_file(tmp_path, engine, load_all):
    """And no other: one that leads out of the version's folder is refused."""
    save(identity(), tmp_path, "echo", config='default_model_filename: "net.onnx"').rename(
        tmp_path / "echo" / "1" / "net.onnx"
    )
    save(identity(), tmp_path, "sly", config='default_model_filename: "../../echo/1/net.onnx"')
    repository = load_all()
    assert infer(engine, "echo", ROW).tolist() == ROW[0].tolist()
    assert "leads out of its folder" in repository.find("sly").reason


def test_load_with_labels_serves_versions_under_them(tmp_path, engine, load_all):
    """In the data plane and in what is told."""
    for version in (1, 2):
        save(tiny(seed=version), tmp_path, "tiny", version, config=labels("stable=1, canary=2"))
    repository = load_all()
    by_label = {label: infer(engine, "tiny", ONE, label).tolist() for label in ("stable", "canary")}
    first, highest = infer(engine, "tiny", ONE, "1").tolist(), infer(engine, "tiny", ONE).tolist()
    assert by_label == {"stable": first, "canary": highest}
    assert repository.find_ready("tiny", "stable").version == 1


def labels(text, more=""):
    """A configuration with labels."""
    return f'parameters {{ key: "version_labels" value {{ string_value: "{text}" }} }} {more}'


def test_load_with_label_of_what_is_not_served_is_refused(tmp_path, load_all):
    """A label leads somewhere or there is none."""
    for version in (1, 2):
        save(identity(), tmp_path, "echo", version, config=labels("old=1", "version_policy { latest {} }"))
    repository = load_all()
    assert "expected versions that serve, which are 2; given 'old=1'" in repository.find("echo").reason


def test_load_again_moves_labels_without_loading(tmp_path, engine, lifecycle, load_all, monkeypatch):
    """A rollout of what is loaded already is one exchange of tables."""
    for version in (1, 2):
        save(tiny(seed=version), tmp_path, "tiny", version, config=labels("stable=1"))
    repository = load_all()
    monkeypatch.setattr(lifecycle._loader, "prepare", None)
    write_config(tmp_path, "tiny", labels("stable=2,old=1"))
    lifecycle.load("tiny")
    assert infer(engine, "tiny", ONE, "stable").tolist() == infer(engine, "tiny", ONE, "2").tolist()
    assert repository.labels("tiny") == {"stable": 2, "old": 1}
    assert "stable=2" in repository.find("tiny", "old").config.proto.parameters["version_labels"].string_value


def test_load_of_unchanged_model_changes_nothing(tmp_path, lifecycle, load_all, monkeypatch):
    """Asking twice costs nothing; touching the configuration is no change either."""
    save(identity(), tmp_path, "echo", config="max_batch_size: 4")
    load_all()
    monkeypatch.setattr(lifecycle._loader, "prepare", None)
    write_config(tmp_path, "echo", "max_batch_size:   4  # as before")
    lifecycle.load("echo")


def test_load_again_takes_up_what_changed(tmp_path, engine, lifecycle, load_all):
    """A new file, a new configuration, a new version, one that is gone."""
    for version in (1, 2):
        save(tiny(seed=version), tmp_path, "tiny", version)
    repository = load_all()
    before = infer(engine, "tiny", ONE, "2").tolist()
    save(tiny(seed=5), tmp_path, "tiny", 2, config="max_batch_size: 3")
    save(tiny(seed=3), tmp_path, "tiny", 3)
    remove(tmp_path / "tiny" / "1")
    lifecycle.load("tiny")
    assert states(repository, "tiny") == {2: "READY", 3: "READY"}
    assert repository.find("tiny", "2").config.max_batch_size == 3
    assert infer(engine, "tiny", ONE, "2").tolist() != before
    with pytest.raises(InferError, match="version 1 is not found"):
        infer(engine, "tiny", ONE, "1")


def remove(folder):
    """Remove a version's folder."""
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_load_that_fails_keeps_everything_that_served(tmp_path, engine, lifecycle, load_all):
    """A broken new version takes neither its predecessor nor the labels away, and says so everywhere."""
    save(tiny(seed=1), tmp_path, "tiny", 1, config=labels("stable=1", "version_policy { latest {} }"))
    repository = load_all()
    before = infer(engine, "tiny", ONE).tolist()
    save(newer_opset(), tmp_path, "tiny", 2, config=labels("stable=2", "version_policy { latest {} }"))
    with pytest.raises(LoadError, match=r"failed to load 'tiny': version 2: .*opset"):
        lifecycle.load("tiny")
    assert states(repository, "tiny") == {1: "READY", 2: "UNAVAILABLE"}
    assert infer(engine, "tiny", ONE).tolist() == infer(engine, "tiny", ONE, "stable").tolist() == before
    save(tiny(seed=2), tmp_path, "tiny", 2)
    lifecycle.load("tiny")
    assert states(repository, "tiny") == {2: "READY"}
    assert infer(engine, "tiny", ONE, "stable").tolist() != before


@pytest.mark.parametrize("break_it", ["file", "config"])
def test_load_again_of_broken_version_keeps_the_one_that_served(tmp_path, engine, lifecycle, load_all, break_it):
    """The index says that it is not the newest."""
    save(identity(), tmp_path, "echo", config="max_batch_size: 2")
    repository = load_all()
    if break_it == "file":
        save_bytes(tmp_path, "echo", b"garbage")
    else:
        write_config(tmp_path, "echo", "max_batch_size: many")
    with pytest.raises(LoadError, match="failed to load 'echo'"):
        lifecycle.load("echo")
    entry = repository.find("echo")
    assert entry.state is State.READY
    assert entry.reason.startswith("serves what was loaded before, since loading failed: ")
    assert str(tmp_path) not in entry.reason
    assert infer(engine, "echo", ROW).tolist() == ROW[0].tolist()
    save(identity(), tmp_path, "echo", config="max_batch_size: 2")
    lifecycle.load("echo")
    assert repository.find("echo").reason == ""


def test_load_of_unknown_model_says_so(lifecycle):
    """In the words by which Triton's examples know it."""
    for name in ("nobody", "../nobody", "", "."):
        with pytest.raises(NotFoundError, match=r"failed to load .*: the repository has no such model"):
            lifecycle.load(name)


def test_unload_refuses_requests_and_load_brings_it_back(tmp_path, engine, lifecycle, load_all):
    """Known, and unavailable with Triton's word for it; a second unload changes nothing."""
    save(identity(), tmp_path, "echo", config=labels("stable=1"))
    repository = load_all()
    for _ in range(2):
        lifecycle.unload("echo")
        assert (states(repository, "echo"), repository.find("echo").reason) == ({1: "UNAVAILABLE"}, UNLOADED)
        for version in ("", "1"):
            with pytest.raises(InferError, match="is unavailable: unloaded") as caught:
                infer(engine, "echo", ROW, version)
            assert caught.value.code == status.UNAVAILABLE
        with pytest.raises(InferError, match="has no such label"):
            infer(engine, "echo", ROW, "stable")
    lifecycle.load("echo")
    assert infer(engine, "echo", ROW, "stable").tolist() == ROW[0].tolist()


def test_unload_of_what_the_repository_lacks_forgets_it(tmp_path, engine, lifecycle, load_all):
    """A model whose folder is gone is unknown once it is unloaded; one that never was is unknown before."""
    save(identity(), tmp_path, "echo")
    repository = load_all()
    (tmp_path / "echo").rename(tmp_path / ".echo")
    assert infer(engine, "echo", ROW).size == 4
    lifecycle.unload("echo")
    assert repository.names() == set()
    with pytest.raises(InferError, match="unknown model: 'echo' is not found"):
        infer(engine, "echo", ROW)
    with pytest.raises(NotFoundError, match="Request for unknown model: 'echo' is not found"):
        lifecycle.unload("echo")


def test_find_models_that_are_not_wanted_are_known_and_unloaded(tmp_path, engine, lifecycle, repository):
    """Nothing of them is read, so a broken one looks like any other."""
    save(identity(), tmp_path, "echo")
    save_bytes(tmp_path, "garbage", b"garbage")
    lifecycle.find_models(lambda name: name == "echo")
    lifecycle.load_found()
    assert states(repository, "echo") == {1: "READY"}
    assert repository.find("garbage").reason == UNLOADED
    with pytest.raises(UnavailableError, match="unloaded"):
        repository.find_ready("garbage")


def test_look_around_learns_what_came_and_went(tmp_path, engine, lifecycle, load_all):
    """What serves stays, even when its folder is gone."""
    save(identity(), tmp_path, "echo")
    save(identity(), tmp_path, "left")
    repository = load_all()
    lifecycle.unload("left")
    remove(tmp_path / "left" / "1")
    (tmp_path / "left").rmdir()
    (tmp_path / "echo").rename(tmp_path / "renamed")
    lifecycle.look_around()
    assert [(entry.name, entry.state.value) for entry in repository.index()] == [
        ("echo", "READY"),
        ("renamed", "UNAVAILABLE"),
    ]


def test_stop_loading_refuses_what_comes_later(tmp_path, lifecycle, load_all):
    """A load that waits for its turn when the server stops is not begun."""
    save(identity(), tmp_path, "echo")
    load_all()
    lifecycle.stop_loading()
    for operation in (lifecycle.load, lifecycle.unload):
        with pytest.raises(UnavailableError, match="the server is stopping"):
            operation("echo")
    assert not lifecycle.is_busy


def test_load_beside_serving_loses_no_request(tmp_path, engine, lifecycle, load_all):
    """While a model is loaded anew and its labels move, each caller gets an answer of one of its versions."""
    for version in (1, 2):
        save(tiny(seed=version), tmp_path, "tiny", version, config=labels("live=1"))
    load_all()
    expected = {tuple(infer(engine, "tiny", ONE, version)) for version in ("1", "2")}
    stop, answered = threading.Event(), []

    def call():
        while not stop.is_set():
            assert tuple(infer(engine, "tiny", ONE, "live")) in expected
            answered.append(1)

    with ThreadPoolExecutor(3) as threads:
        callers = [threads.submit(call) for _ in range(3)]
        for turn in range(20):
            write_config(tmp_path, "tiny", labels(f"live={1 + turn % 2}", f"max_batch_size: {8 + turn % 3}"))
            lifecycle.load("tiny")
        stop.set()
        for caller in callers:
            caller.result()
    assert len(answered) > 20


def test_unload_finishes_what_was_admitted(tmp_path, engine, lifecycle, load_all):
    """The state tells that it goes on."""
    save(slow(), tmp_path, "slow", config="max_batch_size: 1")
    repository = load_all()
    seen = []
    repository.subscribe(lambda entry: seen.append(entry.state))
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(infer, engine, "slow", ROW) for _ in range(2)]
        while (counts := engine.statistics("slow", 1))["running"] + counts["queued"] < 2:
            pass
        lifecycle.unload("slow")
        assert all(one.result().tolist() == ROW[0].tolist() for one in running)
    assert seen == [State.READY, State.UNLOADING, State.UNAVAILABLE]
