"""The whole deployment, the real service and the real Envoy: up, kept up, drained, and nothing left behind."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import onnx_models
import pytest
from gateway_rig import open_channel, run_load

from service.admin import AdminSocket
from service.deployment import Endpoint
from service.gateway import ADMIN_SOCKET
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc as stubs
from service.plan import Plan
from service.supervisor import Supervisor, SupervisorError
from tests.child_processes import list_children
from tests.free_ports import HOST, find_free_port

TIMEOUT_S = 30.0
# What a run of version 2 of the model `slow` takes at least.
SLOWEST_S = 10.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with a model in two versions and one that takes a while."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        onnx_models.save(onnx_models.tiny(seed=version), folder, "tiny", version)
    onnx_models.save(onnx_models.slow(1_000_000), folder, "slow", 1)
    onnx_models.save(onnx_models.slow(20_000_000), folder, "slow", 2)
    return folder


def make_plan(repository, state_folder, **options):
    """A plan on free ports."""
    ports = {name: Endpoint(HOST, find_free_port()) for name in ("gateway", "operator", "service")}
    defaults = {"model_repository": repository, "state_folder": state_folder, "drain_timeout_s": 20.0}
    return Plan(**{**defaults, **ports, **options})


@pytest.fixture
def plan(repository, tmp_path):
    """A plan that nothing runs yet."""
    return make_plan(repository, tmp_path, weights={"tiny": {1: 1, 2: 3}})


@pytest.fixture(scope="module")
def supervisor(repository, tmp_path_factory):
    """A deployment that splits `tiny` evenly."""
    plan = make_plan(repository, tmp_path_factory.mktemp("state"), weights={"tiny": {1: 1, 2: 1}})
    with Supervisor(plan) as supervisor:
        yield supervisor


@contextlib.contextmanager
def connect(plan, **options):
    """Stubs on a client's connection to the gateway."""
    with open_channel(plan.gateway, plan.certificates, **options) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def make_request(model="tiny", version="", columns=16):
    """A request with one row."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=[1, columns])
    row = np.arange(columns, dtype=np.float32)
    return pb.ModelInferRequest(
        model_name=model, model_version=version, inputs=[tensor], raw_input_contents=[row.tobytes()]
    )


def infer(stub, **options):
    """The version that answered."""
    return stub.ModelInfer(make_request(**options), timeout=TIMEOUT_S, wait_for_ready=True).model_version


def is_served(stub):
    """Whether a call is answered now."""
    try:
        return infer(stub, version="1") == "1"
    except grpc.RpcError:
        return False


def wait_until(condition):
    """Return when the condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_end(descriptors):
    """Return when every process has ended."""
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], TIMEOUT_S)[0]
        os.close(descriptor)


def test_supervisor_serves_both_versions_through_the_gateway(supervisor):
    """Calls without a version reach both, calls with one reach that."""
    with connect(supervisor.plan) as stub:
        assert {infer(stub) for _ in range(60)} == {"1", "2"}
        assert [infer(stub, version=version) for version in ("2", "1")] == ["2", "1"]


def test_service_with_a_clients_certificate_is_closed(supervisor):
    """Nobody comes to the service but through the gateway."""
    plan = supervisor.plan
    with open_channel(plan.service, plan.certificates) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(make_request(), timeout=TIMEOUT_S)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["gateway", "service"])
def test_child_that_is_killed_is_started_again(supervisor, name):
    """Whichever dies, calls are served again soon, and the other is left alone."""
    other = {"gateway": "service", "service": "gateway"}[name]
    before, untouched = supervisor.pid(name), supervisor.pid(other)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: supervisor.pid(name) not in (before, None))
    with connect(supervisor.plan) as stub:
        wait_until(lambda: is_served(stub))
    assert supervisor.pid(other) == untouched


def test_gateway_killed_under_load_fails_only_what_it_had_been_sent(supervisor):
    """A caller loses the call under way and at most one that it sends before it knows; then it waits and goes on."""
    threads, before = 4, supervisor.pid("gateway")
    with connect(supervisor.plan) as stub, run_load(lambda: infer(stub), threads) as load:
        load.wait_for_more(50)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: supervisor.pid("gateway") not in (before, None))
        load.wait_for_more(100)
    assert 1 <= len(load.failures) <= 2 * threads


@pytest.mark.parametrize("purpose", ["gateway", "operator", "service"])
def test_start_on_a_taken_port_names_it_and_leaves_nothing(repository, tmp_path, purpose):
    """Even a port that its owner would share is taken."""
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind((HOST, 0))
        owner.listen()
        port = owner.getsockname()[1]
        before = list_children(os.getpid())
        with pytest.raises(SupervisorError, match=rf"{purpose}.*{HOST}:{port}: Address already in use"):
            Supervisor(make_plan(repository, tmp_path, **{purpose: Endpoint(HOST, port)})).start()
        assert list_children(os.getpid()) == before


def test_start_in_a_state_folder_in_use_names_its_owner(supervisor, repository):
    """Two deployments never share certificates, configuration and sockets."""
    with pytest.raises(SupervisorError, match=f"in use by another sluice, process {os.getpid()}"):
        Supervisor(make_plan(repository, supervisor.plan.state_folder)).start()
    with connect(supervisor.plan) as stub:
        assert infer(stub, version="1") == "1"


def test_start_of_a_service_that_ends_shows_what_it_said(repository, tmp_path):
    """The child's own words are in the error."""
    with pytest.raises(SupervisorError, match=r"(?s)service ended with \d.*max_message_bytes"):
        Supervisor(make_plan(repository, tmp_path, max_message_bytes=1)).start()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": {"tiny": {7: 1}}}, "expected one of versions 1, 2, given 7"),
        ({"envoy": Path("/nowhere/envoy")}, "/nowhere/envoy"),
        ({"model_repository": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_start_of_what_cannot_be_says_why(repository, tmp_path, options, words):
    """What is wrong is named before anything runs."""
    with pytest.raises(SupervisorError, match=words):
        Supervisor(make_plan(repository, tmp_path, **options)).start()


def test_stop_before_start_returns(plan):
    """Who cleans up need not know how far things had got."""
    Supervisor(plan).stop()


def test_stop_lets_a_call_under_way_finish(plan):
    """What was accepted is answered, though everything is told to end."""
    supervisor = Supervisor(plan)
    supervisor.start()
    with connect(plan) as stub:
        request = make_request("slow", version="1", columns=4)
        call = stub.ModelInfer.future(request, timeout=TIMEOUT_S, wait_for_ready=True)
        wait_until(lambda: is_busy(plan, "slow@1"))
        supervisor.stop()
        assert call.result(timeout=0).model_version == "1"
    assert supervisor.pid("gateway") is supervisor.pid("service") is None


def test_stop_under_load_loses_nothing_that_was_accepted(plan):
    """While everything ends, calls are answered or find the door closed, and nothing else."""
    supervisor = Supervisor(plan)
    supervisor.start()
    with connect(plan, is_retrying=True) as stub:
        request = make_request()
        with run_load(lambda: stub.ModelInfer(request, timeout=TIMEOUT_S).model_version, threads=4) as load:
            load.wait_for_more(200)
            supervisor.stop()
            load.wait_for_more(8)
    assert load.failures
    assert {words.partition(";")[0] for _, words in load.failures} == {"failed to connect to all addresses"}


def is_busy(plan, cluster):
    """Whether a call is under way to one version."""
    text = AdminSocket(plan.state_folder / ADMIN_SOCKET).request("GET", "/stats?filter=upstream_rq_active$")
    return f"cluster.{cluster}.upstream_rq_active: 1" in text


@contextlib.contextmanager
def run_up(plan):
    """`sluice up` as a process of its own, once it is ready; yields it and descriptors of its children."""
    ports = {"gateway": plan.gateway, "operator": plan.operator, "grpc": plan.service}
    command = [sys.executable, "-c", "from service.cli import main; main()", "up"]
    arguments = [f"--{name}-port={endpoint.port}" for name, endpoint in ports.items()]
    arguments += [f"--model-repository={plan.model_repository}", f"--state-dir={plan.state_folder}"]
    arguments += ["--weights=tiny:1=1,2=3"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            shown = [
                next(line for line in lines if words in line) for words in ("version 1: 1, version 2: 3", "Ctrl-C")
            ]
            assert len(shown) == 2
            children = list_children(process.pid)
            assert len(children) == 2
            yield process, [os.pidfd_open(child) for child in children]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_on_a_signal_ends_with_0_and_leaves_nothing(plan, number):
    """Ctrl-C and SIGTERM alike drain and end everything."""
    with run_up(plan) as (process, children):
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 0
        wait_for_end(children)


def test_up_on_a_second_signal_ends_at_once(plan):
    """Who does not want to wait for a call under way need not."""
    with run_up(plan) as (process, children), connect(plan) as stub:
        request = make_request("slow", version="2", columns=4)
        call = stub.ModelInfer.future(request, timeout=TIMEOUT_S, wait_for_ready=True)
        wait_until(lambda: is_busy(plan, "slow@2"))
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
        wait_for_end(children)
        assert time.monotonic() - start < SLOWEST_S / 2
        assert isinstance(call.exception(), grpc.RpcError)


def test_up_killed_outright_leaves_nothing(plan):
    """Even when nobody is left to end them, the children end."""
    with run_up(plan) as (process, children):
        process.kill()
        wait_for_end(children)
