"""What a deployment says of calls besides weights, in a real Envoy: pins, callers that stay, and sequences."""

import time
from collections import Counter
from uuid import uuid4

import grpc
import pytest
from access_rig import HOUR_S, LOGIN
from gateway_rig import call, infer
from routing_rig import USERS, place_users, start_routing

from service.pb import open_inference_pb2 as pb
from service.token_keys import sign_token
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


def pin(channel, header, version="", model="digits"):
    """The answer to a call that names a version in a header, and perhaps in the message."""
    return infer(channel, model, version, metadata=[("sluice-version", header)])


def try_infer(channel, metadata):
    """An answer, or the status of a call that was drawn to a failing version each time."""
    try:
        return infer(channel, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()


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
