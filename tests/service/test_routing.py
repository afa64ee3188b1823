"""What a deployment says of calls besides weights, in a real Envoy: pins, callers that stay, sequences and shadows."""

import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from uuid import uuid4

import grpc
import pytest
from access_rig import HOUR_S, LOGIN, list_public, make_issuer_key
from gateway_rig import MAX_MESSAGE_BYTES, START_TIMEOUT_S, Backend, Rig, call, infer
from gateway_rig import run_traffic as run

from certs import ensure_certificates
from certs.identities import CLIENT_URI
from service.access_policy import AccessPolicy, Grant, Issuer, Role
from service.deployment import Deployment, Endpoint, Version
from service.drift import find_drift
from service.headers import VERSION_HEADER
from service.model_routing import CallKey, Routing, Shadow
from service.pb import open_inference_pb2 as pb
from service.shadow_traffic import ShadowTraffic
from service.token_keys import sign_token
from service.traffic import Traffic
from tests.free_ports import HOST, find_free_port

MODELS = ("digits", "words", "sums", "known", "lost")
USERS = [f"user-{number}" for number in range(300)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """One gateway: `digits` with callers that stay and a shadow, `words` and `sums` with sequences.

    The shadow of `lost` is not there.
    """
    folder = tmp_path_factory.mktemp("routing")
    ensure_certificates(folder / "certs")
    serves = [f"{model}/{number}" for model in MODELS for number in (1, 2, 3)]
    backends = {name: Backend(name, folder / "certs", serves) for name in "abc"}
    a, b, c = (backend.endpoint for backend in backends.values())
    everywhere = {1: Version(50, (a, b, c)), 2: Version(50, (a, b, c))}
    key = make_issuer_key(folder, "login", "ES256")
    policy = AccessPolicy(
        issuers={"login": Issuer(issuer=LOGIN, audiences=("sluice",), keys=list_public(key))},
        roles={"user": Role(("*",), ("infer", "pin", "metadata"))},
        grants=(Grant("user", (CLIENT_URI,)),),
    )
    deployment = Deployment(
        models={
            "digits": {1: Version(90, (a,)), 2: Version(10, (b,)), 3: Version(0, (c,))},
            "words": everywhere,
            "sums": everywhere,
            "known": {1: Version(50, (a,)), 2: Version(50, (b,))},
            "lost": {1: Version(1, (a,)), 3: Version(0, (Endpoint(HOST, find_free_port()),))},
        },
        routing={
            "digits": Routing(sticky=CallKey(header="x-user"), shadow=Shadow(3, 0)),
            "words": Routing(affinity=CallKey(header="sluice-sequence")),
            "sums": Routing(affinity=CallKey(message="sequence_id")),
            "known": Routing(sticky=CallKey(claim="sub")),
            "lost": Routing(shadow=Shadow(3, 100)),
        },
        access=policy,
        certificates=folder / "certs",
        gateway=Endpoint(HOST, find_free_port()),
        operator=Endpoint(HOST, find_free_port()),
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    rig = Rig(folder, deployment, START_TIMEOUT_S)
    rig.issuer_key = key
    rig.backends = backends
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        for backend in backends.values():
            backend.stop()


@pytest.fixture
def channel(rig):
    """A client's connection."""
    with rig.connect() as channel:
        yield channel


def pin(channel, header, version="", model="digits"):
    """The answer to a call that names a version in a header, and perhaps in the message."""
    return infer(channel, model, version, metadata=[("sluice-version", header)])


def place_users(channel):
    """The answer that each user gets."""
    return {user: infer(channel, metadata=[("x-user", user)]) for user in USERS}


def try_infer(channel, metadata):
    """An answer, or the status of a call that was drawn to a failing version each time."""
    try:
        return infer(channel, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()


@contextmanager
def copies(rig, percent):
    """So many percent of the calls are copied to the shadow while the block runs."""
    shadow = ShadowTraffic(rig.deployment, rig.operator)
    shadow.set_percent("digits", percent)
    rig.backends["c"].calls.clear()
    try:
        yield rig.backends["c"].calls
    finally:
        shadow.set_percent("digits", None)


def await_calls(calls, count):
    """Return when a backend has got so many calls."""
    for _ in range(3000):
        if len(calls) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(len(calls))


@pytest.mark.parametrize(("header", "answer"), [("1", "a:1"), ("2", "b:2"), ("3", "c:3")])
def test_version_in_a_header_is_reached(channel, header, answer):
    """Whatever its weight; the message may say the same."""
    assert {pin(channel, header) for _ in range(20)} == {answer}
    assert pin(channel, header, version=header) == answer
    metadata = [("sluice-version", header)]
    assert call(channel, "ModelReady", pb.ModelReadyRequest(name="digits"), metadata=metadata) == answer


@pytest.mark.parametrize("version", ["2", "4"])
def test_header_and_message_that_differ_are_refused(channel, version):
    """Neither wins in silence."""
    with pytest.raises(grpc.RpcError, match="expected the version that the message names") as raised:
        pin(channel, "1", version=version)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("header", "version"), [("4", ""), ("one", ""), ("", ""), ("4", "1")])
def test_unknown_version_in_a_header_is_not_found(channel, header, version):
    """The gateway says which there are."""
    with pytest.raises(
        grpc.RpcError, match="sluice-version: model 'digits' has no such version here; it has 1, 2, 3"
    ) as raised:
        pin(channel, header, version)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_users_stay_and_a_shift_moves_them_in_one_direction(rig, channel):
    """Of 300 users at 90 to 10 between 10 and 55 are at version 2: five standard deviations."""
    traffic = Traffic(rig.deployment, rig.operator)
    before = place_users(channel)
    assert place_users(channel) == before
    assert 10 < Counter(before.values())["b:2"] < 55
    try:
        traffic.shift("digits", {1: 50, 2: 50})
        after = place_users(channel)
    finally:
        traffic.put_back("digits", {})
    assert {user for user in USERS if before[user] == "b:2"} < {user for user in USERS if after[user] == "b:2"}
    assert 107 < Counter(after.values())["b:2"] < 193
    assert place_users(channel) == before


def test_subjects_of_tokens_stay(rig, channel):
    """By a claim that was verified, and not by what a client says of itself; without a token by the weights."""

    def ask(subject):
        claims = {"iss": LOGIN, "aud": "sluice", "sub": subject, "exp": int(time.time()) + HOUR_S, "jti": str(uuid4())}
        return infer(channel, "known", metadata=[("authorization", f"Bearer {sign_token(rig.issuer_key, claims)}")])

    answers = {subject: {ask(subject) for _ in range(3)} for subject in USERS[:60]}
    assert {len(one) for one in answers.values()} == {1}
    assert {answer for one in answers.values() for answer in one} == {"a:1", "b:2"}
    assert {infer(channel, "known") for _ in range(60)} == {"a:1", "b:2"}


def test_user_of_a_version_that_fails_is_answered_by_another_and_comes_back(rig, channel):
    """A call that is sent again is drawn anew; it is one call, and the user stays where it was."""
    user = next(user for user, answer in place_users(channel).items() if answer == "b:2")
    rig.backends["b"].is_failing = True
    try:
        assert "a:1" in {try_infer(channel, [("x-user", user)]) for _ in range(20)}
    finally:
        rig.backends["b"].is_failing = False
    assert {infer(channel, metadata=[("x-user", user)]) for _ in range(5)} == {"b:2"}


def test_calls_of_nobody_go_by_the_weights(channel):
    """Without the header each call is drawn by itself."""
    answers = Counter(infer(channel) for _ in range(600))
    assert 23 < answers["b:2"] < 97


def test_weights_with_another_sum_are_refused_where_callers_stay(rig):
    """They would draw everybody anew; nothing is changed."""
    traffic = Traffic(rig.deployment, rig.operator)
    with pytest.raises(ValueError, match="expected weights whose sum is 100"):
        traffic.shift("digits", {1: 1, 2: 1})
    assert traffic.read_weights("digits") == {1: 90, 2: 10, 3: 0}


@pytest.mark.parametrize("model", ["words", "sums"])
def test_calls_of_a_sequence_meet_one_version_and_one_server(channel, model):
    """And those of many sequences all of them; over several connections, which is what clients have."""

    def ask(sequence, turn):
        message = pb.ModelInferRequest(model_name=model)
        message.parameters["sequence_id"].int64_param = sequence
        message.parameters["sequence_start"].bool_param = turn == 0
        return call(channel, "ModelInfer", message, metadata=[("sluice-sequence", str(sequence))])

    answers = {sequence: {ask(sequence, turn) for turn in range(3)} for sequence in range(1, 61)}
    assert {len(one) for one in answers.values()} == {1}
    assert {answer for one in answers.values() for answer in one} == {
        f"{name}:{number}" for name in "abc" for number in (1, 2)
    }


def test_sequence_with_an_id_of_text_stays_too(channel):
    """As Triton's clients may send them."""
    message = pb.ModelInferRequest(model_name="sums")
    message.parameters["sequence_id"].string_param = "anna"
    assert len({call(channel, "ModelInfer", message) for _ in range(20)}) == 1


def test_sequence_stays_at_its_server_when_it_names_the_version(channel):
    """By header or message."""
    by_message = {infer(channel, "words", "2", metadata=[("sluice-sequence", "7")]) for _ in range(10)}
    by_header = {
        infer(channel, "words", metadata=[("sluice-sequence", "7"), ("sluice-version", "2")]) for _ in range(10)
    }
    assert by_message == by_header
    assert len(by_message) == 1


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
        pin(channel, "2")
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
