"""What an operator sees of a server, through NVIDIA's client and a scrape: every check of observing_checks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.deployment_rig import tls_options
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

CHECKS = Path(__file__).with_name("observing_checks.py")
TIMEOUT_S = 120
INFO_OFF = pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=False)})


def run_checks(address, **environment):
    """Run the checks in a process of their own, since tritonclient brings messages of its own."""
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=", str(CHECKS)]
    environment = os.environ | {"TARGET": Target(address).to_json()} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture
def traces(tmp_path):
    """The server's trace file."""
    return tmp_path / "traces.json"


@pytest.fixture
def server(transport, repository, traces):
    """A server whose counters nobody else moves."""
    with ServerProcess(repository, "--insecure", "--metrics-port", "0", "--trace-file", traces) as server:
        yield server


def test_operator_sees_all_through_tritonclient_and_a_scrape(server, traces):
    """Configuration, statistics, metrics, log and trace settings."""
    run_checks(server.address, METRICS=server.await_event("ready")["metrics"], TRACES=str(traces))


@pytest.mark.parametrize("way", ["mtls", "gateway"])
def test_settings_of_a_peer_with_a_certificate_are_read_only(request, way):
    """It may speak for clients of any place, however near it is itself."""
    with request.getfixturevalue(way).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.LogSettings(pb.LogSettingsRequest(), timeout=TIMEOUT_S).settings["log_info"].bool_param
        assert stub.TraceSetting(pb.TraceSettingRequest(), timeout=TIMEOUT_S).settings["trace_level"].value == ["OFF"]
        rate = pb.TraceSettingRequest.SettingValue(value=["1"])
        for call, change in (
            (stub.LogSettings, INFO_OFF),
            (stub.TraceSetting, pb.TraceSettingRequest(settings={"trace_rate": rate})),
        ):
            with pytest.raises(grpc.RpcError, match="remote_controls") as raised:
                call(change, timeout=TIMEOUT_S)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_settings_of_a_peer_with_a_certificate_change_where_that_is_allowed(transport, repository, certificates):
    """By the name of the one, and not of the other."""
    options = (*tls_options(certificates), "--remote-control", "log_settings")
    with ServerProcess(repository, *options) as server:
        target = Target.of_folder(server.address, certificates, "internal-ca", "gateway-upstream")
        with target.connect() as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert not stub.LogSettings(INFO_OFF, timeout=TIMEOUT_S).settings["log_info"].bool_param
            rate = pb.TraceSettingRequest.SettingValue(value=["1"])
            with pytest.raises(grpc.RpcError, match="trace_settings: only callers on the server's own machine"):
                stub.TraceSetting(pb.TraceSettingRequest(settings={"trace_rate": rate}), timeout=TIMEOUT_S)


def test_log_settings_rule_the_log_of_the_process(server):
    """What a client turns on is in the log, and what it turns off is not."""
    script = (
        "import os, sys, json, tritonclient.grpc as triton\n"
        "client = triton.InferenceServerClient(json.loads(os.environ['TARGET'])['address'])\n"
        "client.update_log_settings(json.loads(sys.argv[1]))\n"
        "try: client.infer('adder', [])\n"
        "except triton.InferenceServerException: pass\n"
    )
    environment = os.environ | {"TARGET": Target(server.address).to_json()}
    for settings in ({"log_format": "text", "log_info": False}, {"log_format": "json"}):
        command = [sys.executable, "-c", script, json.dumps(settings)]
        subprocess.run(command, env=environment, check=True, timeout=TIMEOUT_S)
    server.terminate()
    server.wait()
    events = [json.loads(line)["event"] for line in server.log.splitlines()]
    assert "ready" in events
    assert not {"draining", "stopped"} & set(events)
