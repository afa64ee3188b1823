"""What an operator sees of a server, through NVIDIA's client and a scrape."""

import json
import os
import shutil
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
from inference_messages import build_request

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.deployment_rig import tls_options
from tests.end_to_end.metrics_page import read_page, read_samples
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

CHECKS = ("observing_checks.py", "metrics_checks.py", "settings_checks.py")
TIMEOUT_S = 120
INFO_OFF = pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=False)})
# What promtool says of names that are Triton's.
TRITONS_LINT = (
    'counter metrics should have "_total" suffix',
    "metric names should not contain abbreviated units",
    'non-histogram and non-summary metrics should not have "_count" suffix',
)
BYTES = ("received_bytes_total", "sent_bytes_total")


def infer_adder(channel):
    """One request of the model `adder`."""
    request = build_request("adder", {"input": np.zeros((1, 4), np.int64)})
    GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=TIMEOUT_S)


def await_no_calls(server):
    """A scrape, once the server has seen the end of every call; a client hears of it a moment before."""
    until = time.monotonic() + TIMEOUT_S
    while (samples := read_samples(server.await_event("ready")["metrics"]))["sluice_calls"]:
        assert time.monotonic() < until, samples
    return samples


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
    target = Target(server.address).to_json()
    run_checks(*CHECKS, TARGET=target, METRICS=server.await_event("ready")["metrics"], TRACES=str(traces))


def test_metrics_of_the_native_transport_rise_with_traffic(transport, server):
    """Connections, calls and bytes, both ways."""
    if transport != "native":
        pytest.skip("grpcio does not count its traffic")
    target, names = Target(server.address), ("connections_total", "calls_total", *BYTES)
    with target.connect() as channel:
        infer_adder(channel)
        before = await_no_calls(server)
        with target.connect() as other:
            infer_adder(other)
            during = await_no_calls(server)
    risen = {name: during[f"sluice_{name}"] - before[f"sluice_{name}"] for name in names}
    assert (risen["connections_total"], risen["calls_total"]) == (1, 1)
    assert all(risen[name] > 32 for name in BYTES)
    assert during["sluice_connections"] == 2


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
def test_promtool_finds_no_fault_but_with_tritons_names(server):
    """Prometheus's own linter: our metrics pass it, and of Triton's the names alone do not."""
    with Target(server.address).connect() as channel:
        infer_adder(channel)
    page = read_page(server.await_event("ready")["metrics"])
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    complaints = done.stderr.splitlines() + done.stdout.splitlines()
    assert [one for one in complaints if not (one.startswith("nv_") and one.endswith(TRITONS_LINT))] == []


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
