"""Priorities, timeouts, order and deadlines, as config.pbtxt has them, through every transport."""

import concurrent.futures
import time

import grpc
import numpy as np
import onnx_models
import pytest
from google.rpc import error_details_pb2, status_pb2
from inference_messages import build_request

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.metrics_page import read_samples
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 60.0
BUSY_ITERATIONS = 1_000_000.0
# As kernels/service_time.pyx has it.
ENOUGH_RUNS = 16
PENDING = "nv_inference_pending_request_count"
LEVELS = """
max_batch_size: 1
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { allow_timeout_override: true }
  priority_queue_policy { key: 1 value { max_queue_size: 2 } }
}
"""
ORDERED = """
max_batch_size: 1
instance_group { count: 2 }
dynamic_batching { preserve_ordering: true }
"""
UNORDERED = "max_batch_size: 1 instance_group { count: 2 }"
HASTY = "max_batch_size: 1"
BATCHED = "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 10000000 }"


@pytest.fixture(scope="module")
def server(transport, tmp_path_factory):
    """The way to a server of models that take as long as their input says."""
    folder = tmp_path_factory.mktemp("scheduled")
    configs = {"levels": LEVELS, "ordered": ORDERED, "unordered": UNORDERED, "batched": BATCHED, "hasty": HASTY}
    for name, config in configs.items():
        onnx_models.save(onnx_models.slow_by_value(), folder, name, config=config)
    with ServerProcess(folder, "--insecure", "--metrics-port", "0") as server:
        with Target(server.address).connect() as channel:
            for name in configs:
                # Counters of dispatches are there from a model's first run on.
                GRPCInferenceServiceStub(channel).ModelInfer(make_request(name, rows=2 if name == "batched" else 1))
        yield server


@pytest.fixture
def scrape(server):
    """Read one metric of a model, all labels together: scrape("nv_inference_count", "levels")."""
    address = server.await_event("ready")["metrics"]

    def read(name, model):
        samples = read_samples(address)
        return sum(value for sample, value in samples.items() if sample.startswith(f'{name}{{model="{model}"'))

    return read


@pytest.fixture
def occupy(stub, scrape):
    """Have a model run something long, and go on once it does: occupy("levels") gives that call."""

    def start(model):
        before = scrape("sluice_dispatches_total", model)
        call = stub.ModelInfer.future(make_request(model, BUSY_ITERATIONS), timeout=TIMEOUT_S)
        while scrape("sluice_dispatches_total", model) == before:
            pass
        return call

    return start


@pytest.fixture
def stub(server):
    """Stubs on a connection of the test's own."""
    with Target(server.address).connect() as channel:
        yield GRPCInferenceServiceStub(channel)


def make_request(model, iterations=1.0, rows=1, **parameters):
    """A request that takes as long as that."""
    return build_request(model, {"input": np.full((rows, 4), iterations, np.float32)}, **parameters)


def note_ends(calls):
    """Names of calls in the order in which they end."""
    ended, all_ended = [], concurrent.futures.Future()

    def note(name):
        ended.append(name)
        if len(ended) == len(calls):
            all_ended.set_result(ended)

    for name, call in calls.items():
        call.add_done_callback(lambda _, name=name: note(name))
    return all_ended.result(TIMEOUT_S)


def test_urgent_requests_are_answered_first(stub, occupy, scrape):
    """A few hundred milliseconds' work each, so that no answer overtakes another on its way."""
    calls = {"busy": occupy("levels")}
    for name, priority in [("default", None), ("less", 2), ("urgent", 1)]:
        request = make_request("levels", BUSY_ITERATIONS / 10, priority=priority)
        calls[name] = stub.ModelInfer.future(request, timeout=TIMEOUT_S)
        while scrape(PENDING, "levels") < len(calls) - 1:
            pass
    assert note_ends(calls) == ["busy", "urgent", "default", "less"]


def test_timeout_of_a_request_ends_its_waiting(stub, occupy):
    """As DEADLINE_EXCEEDED, long before the call's own deadline, while the model is busy."""
    busy = occupy("levels")
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(make_request("levels", timeout_us=20_000), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert raised.value.details() == "the request's timeout passed while it was queued"
    assert not busy.done()
    busy.result()


def test_full_level_is_resource_exhausted(stub, occupy):
    """Which a gateway does not retry, other than Triton's UNAVAILABLE."""
    busy = occupy("levels")
    requests = [make_request("levels", priority=1) for _ in range(4)]
    calls = [stub.ModelInfer.future(request, timeout=TIMEOUT_S) for request in requests]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 2
    assert codes.count(grpc.StatusCode.OK) == 2
    busy.result()


def test_stream_answers_a_request_that_timed_out(stub, occupy):
    """With the reason, and goes on."""
    busy = occupy("levels")
    requests = [make_request("levels", timeout_us=20_000), make_request("levels")]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S))
    assert [answer.error_message for answer in answers] == ["the request's timeout passed while it was queued", ""]
    busy.result()


@pytest.mark.parametrize(("model", "is_ordered"), [("ordered", True), ("unordered", False)])
def test_answers_keep_their_order_where_asked(stub, occupy, model, is_ordered):
    """The second of two instances is done long before the first, and its answers wait or do not."""
    begun, ends = time.monotonic(), {}
    calls = {"busy": occupy(model)}
    for index in range(5):
        calls[index] = stub.ModelInfer.future(make_request(model), timeout=TIMEOUT_S)
    for name, call in calls.items():
        call.add_done_callback(lambda _, name=name: ends.update({name: time.monotonic() - begun}))
    for call in calls.values():
        call.result()
    first = min(ends[index] for index in range(5))
    # Answers that are sent one behind the other may be noted in any order.
    assert first > ends["busy"] / 2 if is_ordered else first < ends["busy"]


def test_preferred_size_does_not_wait_for_the_delay(stub):
    """Of ten seconds, which is longer than these calls' deadline."""
    calls = [stub.ModelInfer.future(make_request("batched"), timeout=TIMEOUT_S) for _ in range(2)]
    assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 2


def test_request_that_would_be_late_is_refused_with_when_to_try_again(stub, occupy, scrape):
    """RESOURCE_EXHAUSTED, and a RetryInfo in google.rpc.Status, as clients of gRPC read it."""
    for _ in range(ENOUGH_RUNS):
        stub.ModelInfer(make_request("hasty", BUSY_ITERATIONS / 20), timeout=TIMEOUT_S)
    busy = occupy("hasty")
    others = [stub.ModelInfer.future(make_request("hasty", BUSY_ITERATIONS), timeout=TIMEOUT_S) for _ in range(60)]
    while scrape(PENDING, "hasty") < len(others):
        pass
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(make_request("hasty"), timeout=0.5)
    for call in (busy, *others):
        call.cancel()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "after its deadline" in raised.value.details()
    details = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    told = status_pb2.Status.FromString(details)
    assert (told.code, told.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], raised.value.details())
    retry = error_details_pb2.RetryInfo()
    assert told.details[0].Unpack(retry)
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() < TIMEOUT_S


def test_configuration_tells_what_is_in_force(stub):
    """ModelConfig, with every field of the queue."""
    config = stub.ModelConfig(pb.ModelConfigRequest(name="levels"), timeout=TIMEOUT_S).config.dynamic_batching
    assert (config.priority_levels, config.default_priority_level) == (2, 2)
    assert config.priority_queue_policy[1].max_queue_size == 2
    assert config.default_queue_policy.allow_timeout_override


def test_wrong_priority_is_invalid_argument(stub):
    """With its name."""
    request = make_request("levels")
    request.parameters["priority"].string_param = "high"
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request, timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "parameter 'priority'" in raised.value.details()
