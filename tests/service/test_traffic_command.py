"""`sluice traffic` on a real Envoy under load: what it shows, changes, refuses, and takes back."""

import json
import os
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
from gateway_rig import run_traffic as run
from gateway_rig import start_rig

from service.deployment import runtime_key
from service.gateway import RUNTIME_FILE as WEIGHTS_FILE
from service.gateway_apply import LOCK
from service.instance import lock_instance
from service.traffic import Traffic
from service.traffic_history import TrafficHistory

WAIT_S = 60.0


@pytest.fixture
def rig(tmp_path):
    """A gateway that splits `digits` 90 to 10."""
    with start_rig(tmp_path) as rig:
        yield rig


def start_process(rig, *arguments):
    """Start `sluice traffic` as a process of its own."""
    command = [sys.executable, "-u", "-c", "from service.cli import main; main()", "traffic", *arguments]
    return subprocess.Popen(
        [*command, "--state-dir", str(rig.state_folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def post(rig, values):
    """Give the admin values as an operator does by hand."""
    query = "&".join(f"{runtime_key('digits', number)}={quote(text)}" for number, text in values.items())
    rig.admin.request("POST", f"/runtime_modify?{query}")


def read_weights(rig):
    """Weights in force."""
    return Traffic(rig.deployment, rig.admin).read_weights("digits")


def await_true(condition):
    """Return once it holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_set_under_load_takes_effect_and_undo_takes_it_back(rig):
    """No call fails; afterwards the admin holds nothing, as before."""
    with rig.load() as load:
        load.wait_for_more(50)
        result = run(rig, "set", "digits", "2=1", "--only")
        assert result.exit_code == 0, result.output
        assert "90.0% → 0.0%" in result.output
        load.wait_for_more(20)
        assert set(load.wait_for_more(100)) == {"b:2"}
        assert run(rig, "undo").exit_code == 0
        load.wait_for_more(20)
        assert load.wait_for_more(300)["a:1"] > 200
    assert load.failures == []
    layers = Traffic(rig.deployment, rig.admin).read_layers("digits")
    assert (layers.overrides, layers.in_force) == ({}, {1: 90, 2: 10})
    assert [change.outcome for change in TrafficHistory(rig.state_folder).read()] == ["done", "done"]


def test_set_for_good_and_its_undo_change_the_file(rig):
    """With the override that lay above the file before; a second undo takes back the first."""
    post(rig, {1: "5"})
    assert run(rig, "set", "digits", "1=30,2=70", "--for-good").exit_code == 0
    layers = Traffic(rig.deployment, rig.admin).read_layers("digits")
    assert (layers.lasting, layers.overrides) == ({1: "30", 2: "70"}, {})
    assert run(rig, "undo", "digits").exit_code == 0
    layers = Traffic(rig.deployment, rig.admin).read_layers("digits")
    assert (layers.lasting, layers.overrides) == ({1: "90", 2: "10"}, {1: "5"})
    assert run(rig, "undo").exit_code == 0
    assert read_weights(rig) == {1: 30, 2: 70}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "digits", "1=0,2=0"], "above 0 for at least one version"),
        (["set", "letters", "1=1"], "expected one of digits"),
        (["set", "digits", "3=1"], "expected one of versions 1, 2, given 3"),
        (["set", "digits", "1=lots"], "whole numbers from 0, given '1=lots'"),
        (["set", "digits", "1=-1"], "whole numbers from 0"),
        (["undo"], "nothing to undo"),
        (["shift", "digits", "--to", "3=5", "--over", "1s"], "expected one of versions 1, 2"),
        (["shift", "digits", "--to", "2=50", "--over", "soon"], "a duration such as"),
        (["set", "digits", "1=1", "--for-good", "--operator", "127.0.0.1:9"], "on the gateway's machine"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(shared_rig, arguments, words):
    """Exit code 1 with the reason; neither weights, nor file, nor history."""
    file = (shared_rig.state_folder / WEIGHTS_FILE).read_bytes()
    result = run(shared_rig, *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert read_weights(shared_rig) == {1: 90, 2: 10}
    assert (shared_rig.state_folder / WEIGHTS_FILE).read_bytes() == file
    assert TrafficHistory(shared_rig.state_folder).read() == []


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory):
    """One gateway for what changes nothing."""
    with start_rig(tmp_path_factory.mktemp("traffic-command")) as rig:
        yield rig


def test_dry_run_prints_and_changes_nothing(shared_rig):
    """The preview is the same."""
    for arguments in (["set", "digits", "2=90"], ["shift", "digits", "--to", "2=50", "--over", "1m"]):
        result = run(shared_rig, *arguments, "--dry-run")
        assert result.exit_code == 0
        assert "10.0% → 50.0%" in result.output
    assert read_weights(shared_rig) == {1: 90, 2: 10}


def test_change_while_another_process_holds_the_lock_is_refused(shared_rig):
    """Its number is told; what only looks goes on."""
    with lock_instance(shared_rig.state_folder / LOCK), start_process(shared_rig, "set", "digits", "1=1") as process:
        _, errors = process.communicate(timeout=WAIT_S)
        assert run(shared_rig, "show").exit_code == 0
    assert process.returncode == 1
    assert f"process {os.getpid()}" in errors
    assert read_weights(shared_rig) == {1: 90, 2: 10}


def test_show_through_the_operator_listener_tells_overrides_and_garbage(rig):
    """What an operator posted is shown as it is, and what Envoy makes of it."""
    post(rig, {1: "lots", 2: "010"})
    result = run(rig, "show", "--operator", str(rig.deployment.operator))
    assert result.exit_code == 0, result.output
    assert "'lots' is no weight; Envoy goes by the declared 90" in result.output
    assert "set by an operator until Envoy ends" in result.output
    rows = json.loads(run(rig, "show", "digits", "--json").output)
    assert [(row["override"], row["in_force"], row["healthy"]) for row in rows] == [("lots", 90, 1), ("010", 8, 1)]


@pytest.mark.parametrize(
    ("text", "other", "share"),
    [
        ("01000000", 262144, 0.5),
        ("0x100", 256, 0.5),
        ("1e2", 100, 0.5),
        ("1.9", 1, 0.5),
        ("0.5", 1, 0),
        ("-1", 1, 0.99),
    ],
)
def test_weights_are_read_as_envoy_reads_them(rig, text, other, share):
    """Of 400 calls the share is right within six deviations; what is no weight counts as the declared 90."""
    post(rig, {1: text, 2: str(other)})
    with rig.load() as load:
        load.wait_for_more(20)
        answers = load.wait_for_more(400)
    weights = read_weights(rig)
    assert weights[1] / (weights[1] + weights[2]) == pytest.approx(share, abs=0.01)
    assert answers["a:1"] / answers.total() == pytest.approx(share, abs=6 * 0.025)


def test_shift_under_load_goes_step_by_step_without_failure(rig):
    """A line a step; the end lasts; a single undo takes all of it back."""
    with rig.load() as load:
        result = run(rig, "shift", "digits", "--to", "2=100", "--over", "4s", "--steps", "2", "--for-good")
        assert result.exit_code == 0, result.output
        load.wait_for_more(20)
        assert set(load.wait_for_more(100)) == {"b:2"}
        assert run(rig, "undo").exit_code == 0
    assert load.failures == []
    assert "step 1 of 2" in result.output
    assert "step 2 of 2" in result.output
    assert read_weights(rig) == {1: 90, 2: 10}


def test_shift_goes_back_when_the_gaining_version_fails(rig):
    """The gateway sends these calls again to the other version: clients see little of it, the shift sees all."""
    rig.backends[2].is_failing = True
    with rig.load() as load:
        load.wait_for_more(20)
        result = run(rig, "shift", "digits", "--to", "2=50", "--over", "60s", "--steps", "2", "--max-errors", "20")
    assert result.exit_code == 1
    assert "above the 20.0% allowed" in result.output
    assert "went back" in result.output
    assert Traffic(rig.deployment, rig.admin).read_layers("digits").overrides == {}


def run_shift_aside(rig, *arguments):
    """Start a long shift in a process of its own, and return it once its first step is in force."""
    process = start_process(rig, "shift", "digits", "--to", "2=100", "--over", "10m", *arguments)
    await_true(lambda: read_weights(rig) != {1: 90, 2: 10} or process.poll() is not None)
    return process


def test_shift_goes_back_when_the_gaining_version_dies(rig):
    """Then a set that would give it traffic is refused, unless it is insisted on."""
    with run_shift_aside(rig) as process:
        rig.backends[2].stop()
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "none of its 1 servers is healthy; went back" in errors
    assert read_weights(rig) == {1: 90, 2: 10}
    refused = run(rig, "set", "digits", "2=90")
    assert refused.exit_code == 1
    assert "--unhealthy-too" in refused.output
    assert read_weights(rig) == {1: 90, 2: 10}
    assert run(rig, "set", "digits", "2=90", "--unhealthy-too").exit_code == 0


def test_shift_that_is_interrupted_stays_where_it_is_and_says_how_to_undo(rig):
    """Another shift of the model is refused meanwhile."""
    with run_shift_aside(rig) as process:
        assert run(rig, "shift", "digits", "--to", "2=50", "--over", "1s").exit_code == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "sluice traffic undo digits" in errors
    assert read_weights(rig) == {1: 81, 2: 19}
    assert TrafficHistory(rig.state_folder).read()[-1].outcome == "stopped by hand at step 1"
    assert run(rig, "undo").exit_code == 0
    assert read_weights(rig) == {1: 90, 2: 10}


@pytest.mark.parametrize("who", ["an operator by hand", "undo"])
def test_shift_stops_when_somebody_else_changes_the_weights(rig, who):
    """What they set stays; undo works amid a shift."""
    with run_shift_aside(rig) as process:
        if who == "undo":
            await_true(lambda: run(rig, "undo").exit_code == 0)
        else:
            post(rig, {1: "3", 2: "4"})
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "somebody else changed its weights" in errors
    assert read_weights(rig) == ({1: 90, 2: 10} if who == "undo" else {1: 3, 2: 4})
