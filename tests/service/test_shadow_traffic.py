"""Copies of calls in a real Envoy, and the commands for what calls have besides weights."""

import json
import os
import pty
import subprocess
import sys

import pytest
from gateway_rig import call, infer
from gateway_rig import run_traffic as run
from routing_rig import USERS, await_calls, copies, place_users, start_routing

from service.drift import find_drift
from service.headers import VERSION_HEADER
from service.pb import open_inference_pb2 as pb
from service.shadow_traffic import ShadowTraffic
from service.traffic import Traffic


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """The gateway."""
    with start_routing(tmp_path_factory.mktemp("routing")) as rig:
        yield rig


@pytest.fixture
def channel(rig):
    """A client's connection."""
    with rig.connect() as channel:
        yield channel


def test_shadow_gets_copies_as_of_the_same_caller_for_its_own_version(rig, channel):
    """Nobody gets its answers; its calls are counted by themselves."""
    shadow = ShadowTraffic(rig.deployment, rig.operator)
    before = shadow.read("digits").sent
    with copies(rig, 100) as seen:
        assert {infer(channel) for _ in range(50)} <= {"a:1", "b:2"}
        await_calls(seen, 50)
        state = shadow.read("digits")
    for method, metadata, _ in seen:
        assert (method, metadata[VERSION_HEADER]) == ("ModelInfer", "3")
        assert metadata["x-forwarded-client-cert"].endswith("URI=spiffe://sluice.local/client/demo")
    assert (state.version, state.percent, state.declared_percent) == (3, 100, 0)
    assert state.sent - before == 50


def test_copy_has_no_key_by_which_its_answer_could_be_the_callers(rig, channel):
    """A server keeps answers by key: with the caller's, the shadow's could come first and be given to the caller."""
    with copies(rig, 100) as seen:
        key = [("idempotency-key", "one"), ("idempotency-key", "two")]
        assert infer(channel, metadata=[("x-user", USERS[0]), *key]) in ("a:1", "b:2")
        await_calls(seen, 1)
    _, metadata, _ = seen[0]
    assert metadata["x-user"] == USERS[0]
    assert "idempotency-key" not in metadata
    keyed = [name for name in "ab" for _, metadata, _ in rig.backends[name].calls if "idempotency-key" in metadata]
    assert len(keyed) == 1


def test_share_of_copies_is_as_set(rig, channel):
    """Of 600 calls at 20 percent between 70 and 170: five standard deviations."""
    with copies(rig, 20) as seen:
        for _ in range(600):
            infer(channel)
        await_calls(seen, 70)
    assert len(seen) < 170


def test_calls_that_name_a_version_and_other_methods_are_not_copied(rig, channel):
    """Whoever names a version knows what it wants."""
    with copies(rig, 100) as seen:
        infer(channel, version="1")
        infer(channel, metadata=[("sluice-version", "2")])
        call(channel, "ModelReady", pb.ModelReadyRequest(name="digits"))
        infer(channel)
        await_calls(seen, 1)
    assert [method for method, _, _ in seen] == ["ModelInfer"]


def test_streams_are_copied_while_they_go_on(rig, channel):
    """Message by message, before the stream has ended."""
    request = pb.ModelInferRequest(model_name="digits").SerializeToString()

    def ask():
        yield request
        await_calls(seen, 1)
        yield request

    with copies(rig, 100) as seen:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        assert len(list(stream(ask(), timeout=60))) == 2
        await_calls(seen, 2)


def test_shadow_that_does_not_answer_slows_nobody(rig, channel):
    """Every call is answered while no copy is, and no more copies are made than are held."""
    shadow = ShadowTraffic(rig.deployment, rig.operator)
    before = shadow.read("digits")
    held = rig.backends["c"].is_answering
    with copies(rig, 100):
        held.clear()
        try:
            assert sum(bool(infer(channel)) for _ in range(200)) == 200
            after = shadow.read("digits")
        finally:
            held.set()
    assert after.answered == before.answered
    assert after.sent - before.sent == 64
    assert after.dropped - before.dropped == 136


def test_shadow_that_is_not_there_slows_nobody(rig, channel):
    """Its calls fail unseen."""
    assert {infer(channel, "lost") for _ in range(200)} == {"a:1"}
    for _ in range(500):
        if (state := ShadowTraffic(rig.deployment, rig.operator).read("lost")).failed == 200:
            break
    assert (state.answered, state.failed, state.healthy, state.servers) == (0, 200, 0, 1)


def test_pin_gives_one_version_everything_until_undo(rig, channel):
    """All but what names another version."""
    assert "pin 2, until Envoy ends" in run(rig, "pin", "digits", "2", "--dry-run").output
    result = run(rig, "pin", "digits", "2")
    assert result.exit_code == 0, result.output
    try:
        assert set(place_users(channel).values()) == {"b:2"}
        assert infer(channel, version="1") == "a:1"
    finally:
        assert run(rig, "undo", "digits").exit_code == 0
    assert Traffic(rig.deployment, rig.operator).read_layers("digits").overrides == {}


def test_shift_of_callers_that_stay_goes_by_whole_percents(rig):
    """The sum is the same in every step."""
    try:
        result = run(rig, "shift", "digits", "--to", "2=25", "--over", "1s", "--steps", "2")
        assert result.exit_code == 0, result.output
        assert Traffic(rig.deployment, rig.operator).read_weights("digits") == {1: 75, 2: 25, 3: 0}
    finally:
        assert run(rig, "undo", "digits").exit_code == 0
    result = run(rig, "shift", "digits", "--to", "2=12.5", "--over", "1s")
    assert (result.exit_code, "expected whole percents" in result.output) == (1, True)


def test_shift_on_a_terminal_is_a_table_that_is_kept_fresh(rig):
    """Its last state stays to be read."""
    command = [
        sys.executable,
        "-c",
        "from service.cli import main; main()",
        "traffic",
        "shift",
        "digits",
        "--to",
        "2=20",
    ]
    options = ["--over", "1s", "--steps", "2", "--state-dir", str(rig.state_folder)]
    shown, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [*command, *options],
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        ) as process:
            os.close(terminal)
            text = b"".join(iter(lambda: read_terminal(shown), b"")).decode()
        assert process.returncode == 0, text
    finally:
        os.close(shown)
        run(rig, "undo", "digits")
    assert "digits: step 1 of 2" in text
    assert text.index("\x1b[2K") < text.rindex("digits: step 2 of 2, 1s of 1s") < text.rindex("share wanted")
    assert "Done. Take it back with" in text


def read_terminal(shown):
    """What a program has written to its terminal since; nothing once it has ended."""
    try:
        return os.read(shown, 65536)
    except OSError:
        return b""


def test_shadow_is_set_and_shown_by_command(rig, channel):
    """Until Envoy ends, or back to what is declared."""
    seen = rig.backends["c"].calls
    seen.clear()
    assert "gets copies of 100 % of the calls, 0 % declared" in run(rig, "shadow", "digits", "3=100").output
    infer(channel)
    await_calls(seen, 1)
    rows = json.loads(run(rig, "show", "digits", "--json").output)
    assert [row["shadow"] and row["shadow"]["percent"] for row in rows] == [None, None, 100]
    assert "models.digits.shadow.percent: 100, which the admin was given" in str(find_drift(rig.state_folder))
    assert "gets copies of 0 % of the calls:" in run(rig, "shadow", "digits", "declared").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shadow", "digits", "2=5"], "expected version 3, given 2"),
        (["shadow", "digits", "3=101"], "whole numbers up to 100, given '3=101'"),
        (["shadow", "words", "1=5"], "no shadow is declared for it"),
        (["shadow", "letters", "1=5"], "expected one of digits"),
        (["pin", "digits", "4"], "expected one of versions 1, 2, 3, given 4"),
        (["set", "digits", "1=1,2=1"], "expected weights whose sum is 100"),
    ],
)
def test_what_cannot_be_is_refused(rig, arguments, words):
    """With the reason; nothing is changed."""
    result = run(rig, *arguments)
    assert (result.exit_code, words in result.output) == (1, True), result.output
    assert Traffic(rig.deployment, rig.operator).read_weights("digits") == {1: 90, 2: 10, 3: 0}
