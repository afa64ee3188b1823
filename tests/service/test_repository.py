"""The repository: which version a caller means, and what listeners hear of it."""

import pytest

from service.repository import UNLOADED, ModelVersion, Repository, State, parse_version
from service.status import InvalidArgumentError, NotFoundError, UnavailableError


def ready(version, name="echo"):
    """A version that serves."""
    return ModelVersion(name, version, State.READY)


def broken(version, reason="its opset is too new", name="echo"):
    """A version that does not."""
    return ModelVersion(name, version, State.UNAVAILABLE, reason)


@pytest.fixture
def repository():
    """Two versions that serve and one that does not, with labels; beside it another model without."""
    repository = Repository()
    labels = {"echo": {"stable": 1, "canary": 2, "next": 3}}
    repository.publish([ready(1), ready(2), broken(3), ready(7, "other")], labels)
    return repository


def test_find_without_version_gives_the_highest_that_serves(repository):
    """And the highest of all where none does."""
    assert repository.find("echo").version == 2
    repository.publish([broken(1), broken(2)])
    assert repository.find("echo").version == 3


@pytest.mark.parametrize(("version", "number"), [("1", 1), ("3", 3), ("stable", 1), ("canary", 2), ("next", 3)])
def test_find_by_number_or_label_gives_that_version(repository, version, number):
    """A label is another name of a version, whether that serves or not."""
    assert repository.find("echo", version).version == number


def test_find_of_what_is_not_there_says_which(repository):
    """Unknown, unavailable, misspelt and not so labelled are different errors."""
    with pytest.raises(NotFoundError, match="Request for unknown model: 'nobody' is not found"):
        repository.find("nobody")
    with pytest.raises(NotFoundError, match="'echo' version 4 is not found"):
        repository.find("echo", "4")
    with pytest.raises(NotFoundError, match="'stable': model 'other' has no such label"):
        repository.find("other", "stable")
    with pytest.raises(InvalidArgumentError, match="given nothing"):
        repository.find("")
    with pytest.raises(UnavailableError, match="model 'echo' version 3 is unavailable: its opset"):
        repository.find_ready("echo", "next")


@pytest.mark.parametrize("text", ["0", "-1", "1.0", " 1", "١", "9" * 19, "", "+stable", "a" * 65, "a b"])
def test_parse_version_of_what_is_no_number_refuses(text):
    """A version on the wire is a positive decimal number, or a label."""
    with pytest.raises(InvalidArgumentError, match="expected a positive number or a label"):
        parse_version(text)


def test_publish_with_labels_replaces_all_of_that_model_and_no_other(repository):
    """They are in force at the same moment as the versions."""
    repository.publish([], {"other": {"only": 7}})
    assert repository.find("echo", "stable").version == 1
    repository.publish([], {"echo": {"stable": 2}})
    assert repository.find("echo", "stable").version == 2
    assert repository.find("other", "only").version == 7
    with pytest.raises(NotFoundError, match="model 'echo' has no such label"):
        repository.find("echo", "canary")


def test_publish_of_removed_versions_forgets_them_and_then_the_model(repository):
    """With its last version a model is unknown, and its labels with it."""
    repository.publish([ModelVersion("echo", version, State.REMOVED) for version in (2, 3)])
    assert [entry.version for entry in repository.list_versions("echo")] == [1]
    repository.publish([ModelVersion("echo", 1, State.REMOVED)])
    assert repository.names() == {"other"}
    with pytest.raises(NotFoundError, match="Request for unknown model: 'echo' is not found"):
        repository.find("echo")
    repository.publish([ready(1)])
    assert repository.labels("echo") == {}


def test_subscribe_hears_what_there_is_and_then_what_changes(repository):
    """A late listener misses nothing, and nobody hears of what is as it was."""
    seen = []
    repository.subscribe(seen.append)
    assert seen == repository.index()
    seen.clear()
    gone = ModelVersion("echo", 1, State.REMOVED)
    repository.publish([ready(2), ready(3), gone, ModelVersion("nobody", 1, State.REMOVED)])
    assert seen == [ready(3), gone]


def test_publish_logs_failures_as_warnings_and_nothing_else(repository, caplog):
    """What an operator unloads is no failure; what keeps serving an older load is one."""
    caplog.set_level("INFO")
    with caplog.at_level("INFO"):
        repository.publish([broken(1), broken(2, UNLOADED), ModelVersion("echo", 3, State.READY, "loading failed")])
    assert [(record.version, record.levelname) for record in caplog.records] == [
        (1, "WARNING"),
        (2, "INFO"),
        (3, "WARNING"),
    ]
