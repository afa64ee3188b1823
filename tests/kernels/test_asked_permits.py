"""Bound methods whose callers need a permit: asked for once, remembered in bounds, forgotten with the policy."""

import threading

import grpc
import numpy as np
import onnx_models
import pytest
from bound_service import SERVICE, WAIT_S, BoundService, infer_by
from inference_messages import encode_request

from kernels.permit import MAY_INFER, MAY_PIN, MAY_SHARE_MEMORY, Permit
from service.pb.open_inference_pb2 import ModelInferRequest, ModelStreamInferResponse

# As kernels/caller_table.pyx has it.
MAX_CALLERS = 4096
DENIED = grpc.StatusCode.PERMISSION_DENIED
TOKEN = "sluice-token"


class Policy:
    """Answers by the token what its bearer may do, and counts how often it was asked."""

    def __init__(self, **permits):
        self.permits = {name: Permit(rules) for name, rules in permits.items()}
        self.is_forwarded = True
        self.asked = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, info):
        """The server's `admit`."""
        assert self.may_answer.wait(WAIT_S)
        token = dict(info.metadata).get(TOKEN, "")
        self.asked.append(token)
        return self.permits.get(token.partition("-")[0], Permit()), self.is_forwarded


@pytest.fixture
def policy():
    """One may everything, one asks only one model, and all others nothing."""
    every = MAY_INFER | MAY_PIN | MAY_SHARE_MEMORY
    return Policy(boss=[("*", every)], guest=[("same", MAY_INFER), ("other", MAY_PIN)])


@pytest.fixture
def service(engine, load, policy):
    """Two models that answer with what they get."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    load(onnx_models.identity(), "other", max_batch_size=8)
    with BoundService(engine, admit=policy, io_threads=2) as service:
        yield service


def message(name, number=1, **options):
    """A request of one row."""
    return encode_request(name, {"input": np.full((1, 4), number, np.float32)}, **options)


def bearer(token):
    """The headers of a call by whom a gateway speaks."""
    return ((TOKEN, token),) if token else ()


def infer(channel, content, token, *more):
    """The code and text of one call."""
    try:
        infer_by(channel)(content, timeout=WAIT_S, metadata=(*bearer(token), *more))
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def talk(channel, messages, token):
    """A stream of messages: what was said of each."""
    exchange = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    answers = exchange(iter(messages), timeout=WAIT_S, metadata=bearer(token))
    return [ModelStreamInferResponse.FromString(answer).error_message for answer in answers]


def test_caller_is_asked_about_once_and_gets_what_is_allowed(service, policy):
    """Then its I/O thread knows."""
    with service.connect() as channel:
        for _ in range(20):
            assert infer(channel, message("same"), "guest") == (grpc.StatusCode.OK, "")
            assert infer(channel, message("other"), "guest") == (
                DENIED,
                "infer on model 'other': allowed by no role of the caller",
            )
            assert infer(channel, message("same"), "")[0] is DENIED
        assert sorted(policy.asked) == ["", "guest"]


@pytest.mark.parametrize("name", ["other", "nobody"])
def test_model_that_is_not_allowed_is_refused_whether_there_is_one_or_not(service, name):
    """Only its name tells the two answers apart."""
    with service.connect() as channel:
        assert infer(channel, message(name), "guest") == (
            DENIED,
            f"infer on model '{name}': allowed by no role of the caller",
        )
        assert infer(channel, message("nobody"), "boss")[0] is grpc.StatusCode.NOT_FOUND


def test_version_in_the_message_needs_to_be_allowed(service, policy):
    """The header's choice is the gateway's own, unless who sets it is none."""
    hint = ("model-version", "1")
    with service.connect() as channel:
        assert infer(channel, message("same", version="1"), "guest") == (
            DENIED,
            "pin on model 'same': allowed by no role of the caller",
        )
        assert infer(channel, message("same"), "guest", hint)[0] is grpc.StatusCode.OK
        assert infer(channel, message("same", version="1"), "boss")[0] is grpc.StatusCode.OK
    policy.is_forwarded = False
    with service.connect() as channel:
        assert infer(channel, message("same"), "guest", hint)[0] is DENIED


def test_last_of_two_model_names_is_the_one_that_is_checked(service):
    """As it is the one that the engine uses."""
    twice = message("same") + ModelInferRequest(model_name="other").SerializeToString()
    back = message("other") + ModelInferRequest(model_name="same").SerializeToString()
    with service.connect() as channel:
        assert infer(channel, twice, "guest")[0] is DENIED
        assert infer(channel, back, "guest")[0] is grpc.StatusCode.OK


def test_region_of_shared_memory_needs_to_be_allowed(service):
    """Of an input, of an output, known or not."""
    asked = ModelInferRequest.FromString(message("same"))
    asked.outputs.add(name="output").parameters["shared_memory_region"].string_param = "unknown"
    with service.connect() as channel:
        assert infer(channel, asked.SerializeToString(), "guest") == (
            DENIED,
            "shared_memory on model 'same': allowed by no role of the caller",
        )
        assert infer(channel, asked.SerializeToString(), "boss")[0] is not DENIED


def test_forwarded_stream_keeps_to_its_first_model_and_goes_on(service):
    """A message of another one is refused, however much its caller may do."""
    with service.connect() as channel:
        said = talk(channel, [message("same"), message("other"), message("same")], "boss")
    assert said == [
        "",
        "a stream through the gateway is of one model: expected 'same', the first message's, given 'other'",
        "",
    ]


def test_direct_stream_may_change_its_model_as_far_as_that_is_allowed(service, policy):
    """Nobody has looked at its first message only."""
    policy.is_forwarded = False
    with service.connect() as channel:
        assert talk(channel, [message("same"), message("other")], "boss") == ["", ""]
    with service.connect() as channel:
        said = talk(channel, [message("same"), message("other"), message("same")], "guest")
    assert said == ["", "infer on model 'other': allowed by no role of the caller", ""]


def test_requests_wait_in_their_order_until_it_is_known_what_they_may(service, policy):
    """Those of a stream, and those of other calls."""
    policy.may_answer.clear()
    with service.connect() as channel:
        waiting = [
            infer_by(channel).future(message("same", number), timeout=WAIT_S, metadata=bearer(f"guest-{number % 3}"))
            for number in range(30)
        ]
        ids = [str(number) for number in range(40)]
        contents = [message("same", request_id=key) for key in ids]
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            iter(contents), timeout=WAIT_S, metadata=bearer("guest-s")
        )
        policy.may_answer.set()
        assert [ModelStreamInferResponse.FromString(answer).infer_response.id for answer in stream] == ids
        for number, call in enumerate(waiting):
            assert call.result().endswith(np.full(4, number, np.float32).tobytes())


def test_calls_that_end_while_they_wait_for_their_permit_leave_nothing(service, policy):
    """Cancelled, or past their deadline."""
    policy.may_answer.clear()
    with service.connect() as channel:
        calls = [infer_by(channel).future(message("same"), metadata=bearer(f"guest-{place}")) for place in range(20)]
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            iter([message("same")] * 5), metadata=bearer("guest")
        )
        late = infer_by(channel).future(message("same"), timeout=0.05, metadata=bearer("guest"))
        assert late.exception(WAIT_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for call in (*calls, stream):
            call.cancel()
        policy.may_answer.set()
        assert infer(channel, message("same"), "guest")[0] is grpc.StatusCode.OK
    service.server.stop(0.5).wait(WAIT_S)
    assert service.server._transport.statistics() == {"connections": 0, "buffered_bytes": 0}


def test_question_that_fails_resets_the_call_and_no_other(service, policy):
    """What nobody can answer is not let through."""
    policy.permits["odd"] = "no permit"
    with service.connect() as channel:
        assert infer(channel, message("same"), "odd")[0] in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert infer(channel, message("same"), "guest")[0] is grpc.StatusCode.OK


def test_change_of_the_policy_holds_for_the_next_message_of_an_open_stream(service, policy):
    """And the change back."""
    turns = threading.Semaphore(0)

    def send():
        for _ in range(3):
            assert turns.acquire(timeout=WAIT_S)
            yield message("same")

    said = []
    with service.connect() as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(send(), timeout=WAIT_S, metadata=bearer("guest"))
        for rules in ([("same", MAY_INFER)], [], [("same", MAY_INFER)]):
            policy.permits["guest"] = Permit(rules)
            service.server.forget_permits()
            turns.release()
            said.append(ModelStreamInferResponse.FromString(next(stream)).error_message)
    assert said == ["", "infer on model 'same': allowed by no role of the caller", ""]


def test_flood_of_callers_is_remembered_in_bounds(engine, load, policy):
    """Those that came longest ago are forgotten, and asked about again."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    with BoundService(engine, admit=policy, io_threads=1) as service, service.connect() as channel:
        assert infer(channel, message("same"), "guest-first")[0] is grpc.StatusCode.OK
        calls = []
        for place in range(MAX_CALLERS + 100):
            calls.append(
                infer_by(channel).future(message("same"), metadata=bearer(f"stranger-{place}"), timeout=WAIT_S)
            )
            if len(calls) == 500:
                assert {call.exception().code() for call in calls} == {DENIED}
                calls.clear()
        assert {call.exception().code() for call in calls} == {DENIED}
        last = f"stranger-{MAX_CALLERS + 99}"
        before = len(policy.asked)
        assert infer(channel, message("same"), last)[0] is DENIED
        assert len(policy.asked) == before
        assert infer(channel, message("same"), "guest-first")[0] is grpc.StatusCode.OK
        assert policy.asked[-1] == "guest-first"


def test_long_tokens_take_no_more_room_than_many_short_ones(engine, load, policy):
    """A bound in bytes holds beside that in number."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    filler = "x" * 12_000
    with BoundService(engine, admit=policy, io_threads=1) as service, service.connect() as channel:
        for place in range(400):
            assert infer(channel, message("same"), f"guest-{place}-{filler}")[0] is grpc.StatusCode.OK
        before = len(policy.asked)
        assert infer(channel, message("same"), f"guest-0-{filler}")[0] is grpc.StatusCode.OK
        assert len(policy.asked) == before + 1


def test_many_connections_and_callers_at_once_each_get_their_own(service, policy):
    """On several I/O threads, while the policy is looked up anew again and again."""
    wrong = []

    def call(place):
        with service.connect() as channel:
            for turn in range(60):
                if turn % 10 == 0:
                    service.server.forget_permits()
                token = f"{'guest' if turn % 2 else 'stranger'}-{place}-{turn % 5}"
                code, _ = infer(channel, message("same"), token)
                if code is not (grpc.StatusCode.OK if turn % 2 else DENIED):
                    wrong.append((token, code))

    threads = [threading.Thread(target=call, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
