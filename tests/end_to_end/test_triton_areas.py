"""Triton's client examples and the areas of its published test suites, with its own clients, on both transports."""

import onnx_models
import pytest

from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.example_models import write_examples
from tests.end_to_end.models import adder
from tests.end_to_end.server_process import ServerProcess

POLICY = "max_batch_size: 8 version_policy { latest { num_versions: 1 } }"
MODES = {"poll": ("--repository-poll-secs", "0.1"), "explicit": ("--load-model", "*")}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The models that the checks call."""
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def server(transport, examples):
    """A server that the checks share."""
    with ServerProcess(examples, "--insecure") as server:
        yield server


@pytest.fixture
def counted_server(transport, examples):
    """A server of a check's own, whose counters nobody else moves; a slow run is never in the way of a scrape."""
    with ServerProcess(examples, "--insecure", "--metrics-port", "0", "--inline", "never") as server:
        yield server


@pytest.mark.parametrize("checks", ["example_checks.py", "infer_area_checks.py", "stream_checks.py"])
def test_tritons_client_is_answered_as_by_triton(server, checks):
    """Its examples, the areas of inference, and streams."""
    run_checks(checks, ADDRESS=server.address, PID=str(server.pid))


@pytest.mark.parametrize("checks", ["traffic_checks.py", "giving_up_checks.py"])
def test_what_tritons_client_asks_for_is_counted(counted_server, checks):
    """What was answered, and what ended by a deadline or a cancellation."""
    run_checks(checks, ADDRESS=counted_server.address, METRICS=counted_server.await_event("ready")["metrics"])


@pytest.mark.parametrize("mode", MODES)
def test_model_changes_under_tritons_client(transport, tmp_path, mode):
    """New versions come while it calls in every way."""
    repository, spare = tmp_path / "models", tmp_path / "spare"
    onnx_models.save(adder(1), repository, "adder", 1, POLICY)
    for version in (2, 3, 4):
        onnx_models.save(adder(version), spare, "adder", version)
    with ServerProcess(repository, "--insecure", "--model-control-mode", mode, *MODES[mode]) as server:
        places = {"REPOSITORY": str(repository), "SPARE": str(spare)}
        run_checks("update_checks.py", ADDRESS=server.address, MODE=mode, **places)
