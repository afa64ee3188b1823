"""What the tests of the lifecycle share: an engine, and a lifecycle over the test's folder."""

import pytest

from kernels.engine import Engine
from service.lifecycle import Lifecycle
from service.repository import Repository


@pytest.fixture
def engine():
    """An engine with two threads."""
    engine = Engine(workers=2)
    yield engine
    engine.close()


@pytest.fixture
def repository():
    """What the lifecycle tells."""
    return Repository()


@pytest.fixture
def lifecycle(tmp_path, engine, repository):
    """A lifecycle that has not looked into the folder yet."""
    return Lifecycle(tmp_path, engine, repository)


@pytest.fixture
def load_all(lifecycle, repository):
    """Load what is in the folder, and return the repository."""

    def load_found():
        lifecycle.find_models()
        lifecycle.load_found()
        return repository

    return load_found
