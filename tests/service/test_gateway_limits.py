"""Limits that each gateway counts by itself, and what a model takes: a real Envoy, statuses as grpcio sees them."""

import threading
import time

import grpc
import pytest
from gateway_rig import PREFIX, Backend, call, infer, start_rig
from limit_calls import DETAILS, Crowd, count_let_through, find_refusal, read_retry_s

from certs import ensure_certificates
from service.deployment import Version
from service.headers import PIN_HEADER
from service.limits import Limits, ModelLimit, RateLimit
from service.pb import open_inference_pb2 as pb
from service.running_gateway import RunningGateway

HOUR = {"per": "hour", "requests": 1}
MAX_MESSAGE_BYTES = 4096
MAX_CALLS = 2
# Calls of each test are told from those of others by their model, client or action.
RATES = (
    RateLimit(name="subjects", by=("subject",), burst=3, models=("counted",), **HOUR),
    RateLimit(name="subjects-by-model", by=("subject", "model"), burst=2, models=("pair-a", "pair-b"), **HOUR),
    RateLimit(name="all", burst=2, certificates=("spiffe://example.org/one", "spiffe://example.org/two"), **HOUR),
    RateLimit(name="actions", by=("action",), burst=2, models=("acted",), actions=("metadata", "statistics"), **HOUR),
    RateLimit(name="few", by=("certificate",), burst=1, models=("few",), max_buckets=2, **HOUR),
    RateLimit(name="versions", by=("subject", "model"), burst=3, models=("versioned",), **HOUR),
    RateLimit(name="quick", requests=300, per="minute", burst=1, models=("quick",)),
)
MODELS = ("counted", "pair-a", "pair-b", "acted", "few", "quick", "sized", "busy", "free", "versioned")


class WaitingBackend(Backend):
    """A backend whose calls of ModelInfer wait until they are let go."""

    may_go = threading.Event()

    def _answer(self, method, metadata, request):
        answer = super()._answer(method, metadata, request)
        if b"wait" in request:
            assert self.may_go.wait(60)
        return answer


@pytest.fixture(scope="module")
def crowd_rig(tmp_path_factory):
    """A gateway with all of the limits, and clients with names."""
    folder = tmp_path_factory.mktemp("limits")
    certificates = folder / "certs"
    ensure_certificates(certificates)
    crowd = Crowd(certificates)
    serves = [f"{model}/1" for model in MODELS] + ["digits/1", "digits/2"]
    backend = WaitingBackend("a", certificates, serves)
    versions = {1: Version(1, (backend.endpoint,))}
    limits = Limits(
        rates=RATES,
        models={
            "sized": ModelLimit(max_message_bytes=MAX_MESSAGE_BYTES),
            "busy": ModelLimit(max_calls=MAX_CALLS),
        },
    )
    with start_rig(
        folder, backends={1: [backend], 2: [backend]}, models={model: versions for model in MODELS}, limits=limits
    ) as rig:
        yield rig, crowd


@pytest.fixture(scope="module")
def connect(crowd_rig):
    """Opens a channel of the client of a name."""
    rig, crowd = crowd_rig
    return lambda name: crowd.connect(rig.deployment.gateway, name)


def ask(model):
    """A call of a model."""
    return lambda channel: infer(channel, model)


def read_stat(rig, name):
    """One of Envoy's statistics."""
    return RunningGateway(rig.admin).read_numbers([name])[name]


def test_one_subject_cannot_spend_what_is_anothers(connect):
    """Each has its own bucket, whoever else has emptied theirs; calls of other models are not counted."""
    with connect("ann") as ann, connect("ben") as ben:
        assert count_let_through(ann, 8, ask("counted")) == 3
        assert count_let_through(ben, 2, ask("counted")) == 2
        assert count_let_through(ann, 4, ask("counted")) == 0
        assert count_let_through(ben, 2, ask("counted")) == 1
        assert count_let_through(ann, 8, ask("free")) == 8


def test_each_model_of_a_subject_has_its_own_bucket(connect):
    """By two things is by each pair of them."""
    with connect("ann") as ann, connect("ben") as ben:
        assert count_let_through(ann, 4, ask("pair-a")) == 2
        assert count_let_through(ann, 4, ask("pair-b")) == 2
        assert count_let_through(ben, 4, ask("pair-a")) == 2


def test_however_a_version_is_chosen_it_is_the_models_call(connect):
    """By weight, by the message or by a header: none of them passes a limit of the model by."""
    with connect("chooser") as channel:
        ways = [{}, {"version": "1"}, {"metadata": [(PIN_HEADER, "1")]}]
        for way in ways:
            assert infer(channel, "versioned", **way)
        for way in ways:
            assert find_refusal(channel, lambda channel, way=way: infer(channel, "versioned", **way))


def test_limit_by_nothing_counts_its_certificates_together(connect):
    """And nobody else."""
    with connect("one") as one, connect("two") as two, connect("three") as three:
        assert count_let_through(one, 1, ask("free")) == 1
        assert count_let_through(two, 3, ask("free")) == 1
        assert count_let_through(one, 1, ask("free")) == 0
        assert count_let_through(three, 8, ask("free")) == 8


def test_client_without_a_name_is_counted_all_the_same(crowd_rig, connect):
    """Those without a URI name share a bucket; of several names the first counts."""
    _, crowd = crowd_rig
    crowd.issue("nameless")
    crowd.issue("nameless-too")
    crowd.issue("many", "spiffe://example.org/first", "spiffe://example.org/second")
    crowd.issue("first", "spiffe://example.org/first")
    with connect("nameless") as nameless, connect("nameless-too") as other:
        assert count_let_through(nameless, 2, ask("counted")) == 2
        assert count_let_through(other, 3, ask("counted")) == 1
    with connect("many") as many, connect("first") as first:
        assert count_let_through(many, 2, ask("counted")) == 2
        assert count_let_through(first, 3, ask("counted")) == 1


def test_actions_are_told_by_the_method(connect):
    """Metadata and statistics have a bucket each, inference is not counted."""

    def act(method, message):
        return lambda channel: call(channel, method, message)

    with connect("ann") as ann:
        assert count_let_through(ann, 1, act("ModelReady", pb.ModelReadyRequest(name="acted"))) == 1
        assert count_let_through(ann, 3, act("ModelMetadata", pb.ModelMetadataRequest(name="acted"))) == 1
        assert count_let_through(ann, 3, act("ModelStatistics", pb.ModelStatisticsRequest(name="acted"))) == 2
        assert count_let_through(ann, 4, ask("acted")) == 4


def test_more_callers_than_buckets_take_the_place_of_the_least_recent(connect):
    """What max_buckets says: the one whose bucket went begins anew, and the others' stay."""
    with connect("ann") as ann, connect("ben") as ben, connect("cid") as cid:
        assert count_let_through(ann, 2, ask("few")) == 1
        assert count_let_through(ben, 2, ask("few")) == 1
        assert count_let_through(cid, 2, ask("few")) == 1
        assert count_let_through(ben, 1, ask("few")) == 0
        assert count_let_through(ann, 2, ask("few")) == 1


def test_names_of_models_that_are_not_there_use_up_no_buckets(connect):
    """A client cannot make others' buckets be forgotten by making names up."""
    with connect("dan") as dan:
        assert count_let_through(dan, 2, ask("few")) == 1
        for number in range(20):
            with pytest.raises(grpc.RpcError, match="no such model here"):
                infer(dan, f"made-up-{number}")
        assert count_let_through(dan, 2, ask("few")) == 0


def test_refusal_carries_the_delay_after_which_a_call_is_let_through(connect):
    """300 a minute are one in 0.2 s: who waits that long gets it, and the text says what was expected."""
    with connect("ann") as ann:
        while (error := find_refusal(ann, ask("quick"))) is None:
            pass
        assert error.details().startswith("limit 'quick': expected at most 300 requests a minute, 1 at once;")
        assert read_retry_s(error) == 0.2
        time.sleep(read_retry_s(error))
        assert find_refusal(ann, ask("quick")) is None


def test_refusals_are_counted_by_limit(crowd_rig, connect):
    """In Envoy's statistics, by the limit's name."""
    rig, _ = crowd_rig
    stat = "sluice.limits.subjects.http_local_rate_limit.rate_limited"
    with connect("eve") as eve:
        before = read_stat(rig, stat)
        assert count_let_through(eve, 5, ask("counted")) == 3
        assert read_stat(rig, stat) == before + 2


def test_model_takes_so_many_calls_at_a_time(crowd_rig, connect):
    """One more is refused with a delay, whatever its client; when one ends there is room again."""
    rig, _ = crowd_rig
    wait = pb.ModelInferRequest(model_name="busy", id="wait").SerializeToString()
    backend = rig.backends[1]
    with connect("ann") as ann, connect("ben") as ben:
        before = len(backend.calls)
        held = [ann.unary_unary(PREFIX + "ModelInfer").future(wait, timeout=60) for _ in range(MAX_CALLS)]
        while len(backend.calls) < before + MAX_CALLS:
            time.sleep(0.01)
        error = find_refusal(ben, ask("busy"))
        assert error.details().startswith("model: expected fewer calls under way at a time")
        assert read_retry_s(error) == 0.1
        assert read_stat(rig, "cluster.busy@1.upstream_rq_active_overflow") == 1
        assert count_let_through(ben, 2, ask("free")) == 2
        backend.may_go.set()
        assert [one.result() for one in held] == [b"a:1"] * MAX_CALLS
        # Envoy's books are closed a moment after the client has its answer.
        while find_refusal(ben, ask("busy")):
            time.sleep(0.01)


def test_message_over_the_models_size_is_refused(crowd_rig, connect):
    """One byte more is too much; it carries no delay, since to try again is of no use."""

    def send(size, model="sized"):
        longer = pb.ModelInferRequest(model_name=model, id="x" * size)
        message = pb.ModelInferRequest(model_name=model, id="x" * (2 * size - longer.ByteSize()))
        assert message.ByteSize() == size
        return call(ann, "ModelInfer", message)

    with connect("ann") as ann:
        assert send(MAX_MESSAGE_BYTES) == "a:1"
        assert send(5 * MAX_MESSAGE_BYTES, "free") == "a:1"
        for size in (MAX_MESSAGE_BYTES + 1, 100 * MAX_MESSAGE_BYTES):
            error = find_refusal(ann, lambda _, size=size: send(size))
            assert error.details() == f"model 'sized': expected a message of at most {MAX_MESSAGE_BYTES} bytes"
            assert DETAILS not in dict(error.trailing_metadata())
    assert read_stat(crowd_rig[0], "http.gateway.rbac.sluice.sizes.denied") == 2


def test_stream_of_many_small_messages_is_no_large_message(connect):
    """Several may have come before the first is looked at; sizes within streams are for the service to bound."""
    message = pb.ModelInferRequest(model_name="sized", id="x" * 1000).SerializeToString()
    with connect("ann") as ann:
        answers = ann.stream_stream(PREFIX + "ModelStreamInfer")(iter([message] * 40), timeout=60)
        assert list(answers) == [b"a:1"] * 40


def test_headers_over_the_limit_are_refused(connect):
    """Envoy resets the stream, which grpcio calls INTERNAL; the connection goes on."""
    with connect("ann") as ann:
        assert infer(ann, "free", metadata=[("note", "x" * 1000)]) == "a:1"
        with pytest.raises(grpc.RpcError) as refusal:
            infer(ann, "free", metadata=[(f"note-{number}", "x" * 8000) for number in range(12)])
        assert refusal.value.code() is grpc.StatusCode.INTERNAL
        assert infer(ann, "free") == "a:1"
