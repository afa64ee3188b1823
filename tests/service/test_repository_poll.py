"""Polling: what came, changed or went is followed once it has settled; what is half copied waits."""

import os
import shutil
import threading

import pytest

from kernels.engine import Engine
from service.lifecycle import Lifecycle
from service.model_folders import ModelFolderError
from service.repository import Repository, State
from service.repository_poll import RepositoryPoller
from tests.onnx_models import identity, newer_opset, save, tiny

WAIT_S = 30


class Rig:
    """A repository that is looked at when the test says so, and the loads and unloads that this brought about."""

    def __init__(self, folder, engine):
        self.folder = folder
        self.repository = Repository()
        self.done = []
        self.lifecycle = Lifecycle(folder, engine, self.repository)
        self.poller = RepositoryPoller(folder, self, 0.01)
        self.poller.remember()
        self.lifecycle.find_models()
        self.lifecycle.load_found()

    def follow(self, name):
        """What the poller calls; noted, and done."""
        self.done.append(f"load {name}")
        self.lifecycle.follow(name)

    def unload(self, name):
        """The same."""
        self.done.append(f"unload {name}")
        self.lifecycle.unload(name)

    def look(self):
        """What one look leads to."""
        self.done.clear()
        self.poller.look()
        return list(self.done)

    def states(self):
        """State by model and version."""
        return {(entry.name, entry.version): entry.state for entry in self.repository.index()}


@pytest.fixture
def rig(tmp_path):
    """A repository with one model of one version."""
    save(tiny(seed=1), tmp_path, "tiny", 1, config="max_batch_size: 8")
    engine = Engine(workers=1)
    yield Rig(tmp_path, engine)
    engine.close()


def test_look_at_what_is_as_it_was_does_nothing(rig):
    """As long as it likes."""
    assert [rig.look() for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize("change", ["file", "config", "version", "removed version", "renamed file", "warm-up"])
def test_change_is_taken_up_at_the_second_look(rig, change):
    """Once, not again and again."""
    save(tiny(seed=2), rig.folder, "tiny", 2)
    assert [rig.look(), rig.look()] == [[], ["load tiny"]]
    make_change(rig.folder, change)
    assert [rig.look(), rig.look(), rig.look()] == [[], ["load tiny"], []]
    expected = {("tiny", version): State.READY for version in {"version": (1, 2, 3)}.get(change, (1, 2))}
    if change == "removed version":
        del expected["tiny", 2]
    assert rig.states() == expected


def make_change(folder, change):
    """One of the ways in which a model changes."""
    if change == "file":
        save(tiny(seed=9), folder, "tiny", 2)
    elif change == "config":
        (folder / "tiny" / "config.pbtxt").write_text("max_batch_size: 9")
    elif change == "version":
        save(tiny(), folder, "tiny", 3)
    elif change == "removed version":
        shutil.rmtree(folder / "tiny" / "2")
    elif change == "warm-up":
        (folder / "tiny" / "warmup").mkdir()
        (folder / "tiny" / "warmup" / "row").write_bytes(b"")
    else:
        keep_times(folder / "tiny" / "2" / "model.onnx")


def keep_times(path):
    """Put another file in a file's place, of the same size and time."""
    status, other = path.stat(), path.with_name("other")
    shutil.copyfile(path, other)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_file_that_still_grows_is_not_loaded_until_it_is_whole(rig):
    """A copy takes longer than a look; what stopped half-way is refused, and tried again when it goes on."""
    content = save(tiny(seed=2), rig.folder, "other", 1).read_bytes()
    path = rig.folder / "other" / "1" / "model.onnx"
    for size in range(100, len(content), 1000):
        path.write_bytes(content[:size])
        assert rig.look() == []
    assert rig.look() == ["load other"]
    assert "cut off" in rig.repository.find("other").reason
    assert rig.look() == []
    path.write_bytes(content)
    assert [rig.look(), rig.look()] == [[], ["load other"]]
    assert rig.states() == {("other", 1): State.READY, ("tiny", 1): State.READY}


def test_broken_change_keeps_what_served_and_is_not_tried_again(rig):
    """Until it changes."""
    save(newer_opset(), rig.folder, "tiny", 1)
    assert [rig.look(), rig.look(), rig.look()] == [[], ["load tiny"], []]
    entry = rig.repository.find("tiny")
    assert entry.state is State.READY
    assert "opset" in entry.reason
    save(tiny(seed=3), rig.folder, "tiny", 1)
    assert [rig.look(), rig.look()] == [[], ["load tiny"]]
    assert rig.repository.find("tiny").reason == ""


def test_model_that_comes_is_loaded_and_one_that_goes_is_forgotten(rig):
    """A folder that is there again at the next look was not gone."""
    save(identity(), rig.folder, "echo")
    assert [rig.look(), rig.look()] == [[], ["load echo"]]
    (rig.folder / "echo").rename(rig.folder / ".echo")
    assert rig.look() == []
    (rig.folder / ".echo").rename(rig.folder / "echo")
    assert [rig.look(), rig.look()] == [[], []]
    shutil.rmtree(rig.folder / "echo")
    assert [rig.look(), rig.look(), rig.look()] == [[], ["unload echo"], []]
    assert rig.states() == {("tiny", 1): State.READY}


def test_change_during_the_start_is_not_missed(tmp_path):
    """What is remembered is from before the models were looked for."""
    save(tiny(seed=1), tmp_path, "tiny", 1)
    engine = Engine(workers=1)
    try:
        rig = Rig.__new__(Rig)
        rig.folder, rig.repository, rig.done = tmp_path, Repository(), []
        rig.lifecycle = Lifecycle(tmp_path, engine, rig.repository)
        rig.poller = RepositoryPoller(tmp_path, rig, 0.01)
        rig.poller.remember()
        save(tiny(seed=2), tmp_path, "tiny", 2)
        rig.lifecycle.find_models()
        rig.lifecycle.load_found()
        assert [rig.look(), rig.look()] == [[], ["load tiny"]]
    finally:
        engine.close()


def test_repository_that_is_away_takes_no_model_with_it(rig):
    """A file system that hangs or was unmounted is not an empty repository."""
    away = rig.folder.with_name("away")
    rig.folder.rename(away)
    for _ in range(3):
        with pytest.raises(ModelFolderError, match="cannot be read"):
            rig.look()
    away.rename(rig.folder)
    assert rig.states() == {("tiny", 1): State.READY}


def test_thread_follows_by_itself_and_stops(rig):
    """Every interval, also after a look that failed."""
    came = threading.Event()
    rig.repository.subscribe(lambda entry: came.set() if (entry.name, entry.state) == ("echo", State.READY) else None)
    away = rig.folder.with_name("away")
    rig.folder.rename(away)
    rig.poller.start()
    away.rename(rig.folder)
    save(identity(), rig.folder, "echo")
    assert came.wait(WAIT_S)
    rig.poller.stop()
    rig.poller._thread.join(WAIT_S)
    assert not rig.poller._thread.is_alive()
