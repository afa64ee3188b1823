"""What the attacks share: an engine with models, and servers of it that must survive and be as before."""

import onnx_models
import pytest

from kernels.engine import Engine
from kernels.limits import Limits
from kernels.session import Session
from tests.attacks.attacked_server import AttackedServer
from tests.end_to_end.models import expander


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """An engine with `identity`, which answers with what it was given, and `expander`, whose replies are large."""
    made = Engine()
    folder = tmp_path_factory.mktemp("models")
    made.load("identity", 1, Session(onnx_models.save(onnx_models.identity(), folder, "identity")), max_batch_size=8)
    made.load("expander", 1, Session(onnx_models.save(expander(), folder, "expander")))
    yield made
    made.close()


@pytest.fixture
def attack(engine):
    """Start a server with limits (those of Limits, by name), watched by a bystander; check both at the test's end."""
    started = []

    def start(*, is_watched=True, **limits):
        server = AttackedServer(engine, Limits(**limits))
        started.append(server)
        if is_watched:
            server.watch()
        return server

    yield start
    try:
        for server in started:
            server.check()
    finally:
        for server in started:
            server.close()
