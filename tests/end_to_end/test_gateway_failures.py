"""Behind the gateway servers come and go, and the gateway itself too: what its clients hear of that is counted."""

import os
import signal
import time

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request

from service.deployment import Endpoint
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.plan import Plan
from service.supervisor import Supervisor
from tests.end_to_end.deployment_rig import TwinDeployment
from tests.end_to_end.load import find_wrong, make_request, run_load
from tests.end_to_end.models import SLOW_ITERATIONS, UNBATCHED, VERSIONS, adder
from tests.end_to_end.targets import Target
from tests.free_ports import HOST, find_free_port

TIMEOUT_S = 60.0
CALLERS = 16
KILLS = 4
# From the moment that Envoy is killed until calls are answered again. It takes about 1 s on an idle machine.
RESUME_S = 40.0
# What the longest of all calls may take: a server that hangs is left after three seconds, and its twin answers.
LONGEST_S = 40.0
ROW = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two models, since each version has every Envoy watch another file, and some Envoys run at a time here."""
    folder = tmp_path_factory.mktemp("models")
    for version in VERSIONS:
        onnx_models.save(adder(version), folder, "adder", version, "max_batch_size: 8")
    onnx_models.save(onnx_models.slow(SLOW_ITERATIONS), folder, "slow", config=UNBATCHED)
    return folder


@pytest.fixture(scope="module")
def twins(transport, repository, tmp_path_factory):
    """A deployment whose servers are whole again after each test."""
    folder = tmp_path_factory.mktemp("failures")
    with TwinDeployment(repository, folder, weights={"adder": {1: 50, 2: 50}}) as twins:
        twins.await_healthy(2)
        yield twins


@pytest.fixture
def load(clients, twins):
    """Calls without pause; at the end none has failed, and no client has retried."""
    with run_load(clients, twins.target, callers=CALLERS, connections=4) as load:
        load.wait_for_more(100)
        yield load
        load.wait_for_more(100)
    assert load.failures == []
    assert load.longest_s < LONGEST_S


def test_server_killed_under_load_again_and_again_costs_no_call(twins, load):
    """What it had been sent is sent to its twin; started again, it takes its share."""
    for kill in range(KILLS):
        backend = twins.backends[kill % 2]
        load.wait_for_more(100)
        backend.kill()
        load.wait_for_more(200)
        twins.restart(backend)


def test_server_ended_by_sigterm_under_load_costs_no_call(twins, load):
    """It drains and ends with 0, while its twin takes over."""
    for backend in tuple(twins.backends):
        backend.terminate()
        assert backend.wait() == 0
        assert backend.await_event("stopped")["drained"]
        load.wait_for_more(200)
        twins.restart(backend)


def test_server_that_hangs_under_load_costs_no_call(twins, load):
    """Its connections stay open and say nothing: the gateway finds out and asks its twin."""
    os.kill(twins.backends[0].pid, signal.SIGSTOP)
    try:
        twins.await_healthy(1)
        load.wait_for_more(200)
    finally:
        os.kill(twins.backends[0].pid, signal.SIGCONT)
    twins.await_healthy(2)


def test_long_calls_of_a_server_that_is_killed_are_run_by_its_twin(twins):
    """Not only calls that end in a moment: those that wait and run are begun anew."""
    with twins.target.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
        request = build_request("slow", {"input": ROW}, request_id="slow")
        calls = [stub.ModelInfer.future(request, timeout=TIMEOUT_S) for _ in range(8)]
        stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
        backend = twins.backends[0]
        backend.kill()
        assert {call.result().id for call in calls} == {"slow"}
    twins.restart(backend)


def test_calls_without_any_server_are_unavailable_until_one_is_back(twins):
    """The gateway says so itself, in a moment, and needs nobody's help to go on."""
    gone = tuple(twins.backends)
    with twins.target.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for backend in gone:
            backend.kill()
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        twins.restart(*gone)
        assert find_wrong(stub.ModelInfer(make_request(2), timeout=TIMEOUT_S), 2) == ""


def test_gateway_killed_under_load_is_back_in_time_and_costs_what_it_held(clients, transport, repository, tmp_path):
    """A caller loses the call under way and at most one more, that it sends before it knows; then it goes on."""
    ports = {name: Endpoint(HOST, find_free_port()) for name in ("gateway", "operator", "service")}
    plan = Plan(model_repository=repository, state_folder=tmp_path, drain_timeout_s=10.0, **ports)
    with Supervisor(plan) as supervisor:
        target = Target.of_folder(str(plan.gateway), plan.certificates, "gateway-ca", "client")
        with run_load(clients, target, callers=CALLERS, connections=4) as load:
            for _ in range(2):
                before, lost = supervisor.pid("gateway"), len(load.failures)
                load.wait_for_more(200)
                os.kill(before, signal.SIGKILL)
                killed_at = time.monotonic()
                load.await_failures(lost + 1)
                load.wait_for_more(CALLERS)
                assert time.monotonic() - killed_at < RESUME_S
                assert supervisor.pid("gateway") not in (before, None)
                load.wait_for_more(200)
                assert 1 <= len(load.failures) - lost <= 2 * CALLERS
        assert {status for status, _ in load.failures} == {"UNAVAILABLE"}
