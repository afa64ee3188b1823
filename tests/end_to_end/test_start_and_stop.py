"""A server's start and end: what SIGTERM promises to whom, and what a start that cannot be says."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import onnx_models
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference_messages import build_request

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request, run_load
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.free_ports import find_free_port
from tests.served import CLI

TIMEOUT_S = 60.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# What --drain-timeout is unless somebody says.
DRAIN_S = 30.0
ROW = np.array([[1, 2, 3, 4]], np.float32)
CALLS = 8
# What a call is told that comes when the server stops. grpcio resets those that it has read and not yet begun.
TURNED_AWAY = {"grpcio": {"UNAVAILABLE", "CANCELLED"}, "native": {"UNAVAILABLE"}}
# More than a minute's work, were it not given up.
ENDLESS_ITERATIONS = 60_000_000


@pytest.fixture
def server(transport, repository):
    """A server of the test's own, already ready."""
    with ServerProcess(repository, "--insecure") as server:
        yield server


def run_cli(*arguments):
    """A command that ends by itself."""
    command = [sys.executable, "-c", CLI, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


def start_slow_calls(stub, count=CALLS):
    """Calls that the server has accepted: it has read them all before the one behind them, which has been answered."""
    stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
    request = build_request("slow", {"input": ROW}, request_id="slow")
    calls = [stub.ModelInfer.future(request, timeout=TIMEOUT_S) for _ in range(count)]
    stub.ModelInfer(make_request(2), timeout=TIMEOUT_S)
    return calls


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_every_accepted_call_finish(server, number):
    """The one that runs and those that wait behind it are answered; then the process ends with 0."""
    with Target(server.address).connect() as channel:
        calls = start_slow_calls(GRPCInferenceServiceStub(channel))
        os.kill(server.pid, number)
        assert [call.result().id for call in calls] == ["slow"] * CALLS
        assert server.wait() == 0
    assert server.await_event("stopped")["drained"]


def test_sigterm_under_load_answers_or_turns_away(clients, server, transport):
    """A call is answered rightly, or was not begun and its status says so; none gets another's rows, none fails.

    Every caller ends with the first call that was turned away, so those are as many as there are callers.
    """
    callers = 32
    with run_load(clients, Target(server.address), callers=callers, connections=4, is_patient=False) as load:
        load.wait_for_more(500)
        server.terminate()
        assert server.wait() == 0
    assert {status for status, _ in load.failures} <= TURNED_AWAY[transport], load.failures
    assert len(load.failures) == callers
    assert server.await_event("stopped")["drained"]


def test_sigterm_turns_health_and_newcomers_away_while_it_drains(server):
    """A watcher learns of it at once, and whoever comes now finds nobody."""
    seen = queue.SimpleQueue()
    with Target(server.address).connect() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        thread = threading.Thread(target=lambda: [seen.put(answer.status) for answer in watch])
        thread.start()
        assert seen.get(timeout=TIMEOUT_S) == SERVING
        calls = start_slow_calls(GRPCInferenceServiceStub(channel), 16)
        server.terminate()
        assert seen.get(timeout=TIMEOUT_S) == NOT_SERVING
        server.await_event("draining")
        with Target(server.address).connect() as newcomer, pytest.raises(grpc.RpcError) as raised:
            GRPCInferenceServiceStub(newcomer).ModelInfer(make_request(1), timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not calls[-1].done()
        assert {call.result().id for call in calls} == {"slow"}
        thread.join(TIMEOUT_S)
        assert server.wait() == 0


def test_drain_timeout_ends_what_takes_longer(transport, tmp_path):
    """A call that does not come to its end is given up in time, its caller is told, and the status says so."""
    onnx_models.save(onnx_models.slow(ENDLESS_ITERATIONS), tmp_path, "endless", config="max_batch_size: 0")
    onnx_models.save(onnx_models.tiny(), tmp_path, "tiny")
    with ServerProcess(tmp_path, "--insecure", "--drain-timeout", "0.5") as server:
        with Target(server.address).connect() as channel:
            stub = GRPCInferenceServiceStub(channel)
            request = build_request("endless", {"input": ROW})
            calls = [stub.ModelInfer.future(request, timeout=TIMEOUT_S) for _ in range(3)]
            stub.ModelInfer(build_request("tiny", {"input": np.zeros((1, 16), np.float32)}), timeout=TIMEOUT_S)
            server.terminate()
            codes = {call.exception(TIMEOUT_S).code() for call in calls}
            status = server.wait()
        assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert status == 1
        assert not server.await_event("stopped")["drained"]


def test_sigterm_without_work_ends_at_once(server):
    """Nothing waits for a timeout; idle connections are no work."""
    with Target(server.address).connect() as channel:
        GRPCInferenceServiceStub(channel).ModelInfer(make_request(1), timeout=TIMEOUT_S)
        begun = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - begun < DRAIN_S / 2


def test_server_that_ends_frees_its_port_for_the_next(server, repository):
    """A restart on the same port needs no pause, and clients come back by themselves."""
    port = server.endpoint.port
    with Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(make_request(1), timeout=TIMEOUT_S)
        server.terminate()
        assert server.wait() == 0
        with ServerProcess(repository, "--insecure", "--grpc-port", port):
            reply = stub.ModelInfer(make_request(2), timeout=TIMEOUT_S, wait_for_ready=True)
            assert find_wrong(reply, 2) == ""


def test_calls_while_it_starts_hear_that_it_loads_and_not_that_there_is_nothing(clients, transport, repository):
    """Whoever calls from the first moment on waits, or is told to come again."""
    port = find_free_port()
    server = ServerProcess(repository, "--insecure", "--grpc-port", port)
    with run_load(clients, Target(f"127.0.0.1:{port}"), callers=16, connections=4) as load:
        server.await_event("ready")
        load.wait_for_more(50)
    server.terminate()
    assert server.wait() == 0
    reasons = {text for status, text in load.failures if status == "UNAVAILABLE"}
    assert {status for status, _ in load.failures} <= {"UNAVAILABLE"}
    assert reasons <= {"model 'adder' is unavailable: the model is loading"}


def test_second_server_on_a_port_names_it_and_the_first_goes_on(clients, plain, plain_server, repository):
    """No two share a port in silence."""
    port = plain_server.endpoint.port
    with run_load(clients, plain, callers=2) as load:
        done = run_cli("serve", "--model-repository", repository, "--insecure", "--grpc-port", port)
        load.wait_for_more(10)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert load.failures == []


def test_port_of_another_program_is_named_too(transport, repository):
    """Even one that would share it."""
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        done = run_cli("serve", "--model-repository", repository, "--insecure", "--grpc-port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_start_without_a_decision_on_security_is_refused(repository):
    """Plain text is chosen, never fallen into."""
    done = run_cli("serve", "--model-repository", repository)
    assert done.returncode == 2
    assert "expected either insecure or all of tls_cert, tls_key, tls_client_ca" in done.stderr


def test_print_settings_gives_a_file_that_gives_the_same_again(repository, tmp_path):
    """What is shown can be kept: only the origins change."""
    flags = ("--model-repository", repository, "--insecure", "--drain-timeout", "2.5", "--workers", "3")
    first = run_cli("serve", *flags, "--print-settings")
    (tmp_path / "settings.toml").write_text(first.stdout)
    again = run_cli("serve", "--config", tmp_path / "settings.toml", "--print-settings")
    assert (first.returncode, again.returncode) == (0, 0)
    assert "drain_timeout_s = 2.5" in first.stdout
    shown = [[line.partition(" #")[0].strip() for line in done.stdout.splitlines()] for done in (first, again)]
    assert shown[0] == shown[1]
