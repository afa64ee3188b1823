"""`sluice gateway run`: Envoy alone, on a deployment file, kept running until a signal ends it."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gateway_rig import PREFIX, Backend, infer, open_channel, run_load
from typer.testing import CliRunner

from certs import ensure_certificates
from certs.authority import LEAF_LIFETIME
from service.admin import AdminError, AdminSocket, OperatorListener
from service.cli import app
from service.deployment import Deployment, Endpoint, Version
from service.deployment_file import format_deployment
from service.gateway import ADMIN_SOCKET
from service.gateway_apply import LOCK
from service.instance import lock_instance
from service.pb import open_inference_pb2 as pb
from service.traffic import Traffic
from tests.child_processes import list_children
from tests.free_ports import HOST, find_free_port

READY = "Ctrl-C drains and stops."
TIMEOUT_S = 60
POLL_S = 0.02
DAY = timedelta(days=1)
SOON = "certificate expires soon"
DAYS_LEFT = "envoy_server_days_until_first_cert_expiring"


@pytest.fixture
def deployment(tmp_path):
    """Version 1 with all of the traffic, version 2 without; each with a server of its own."""
    certificates = tmp_path / "certs"
    ensure_certificates(certificates)
    with contextlib.ExitStack() as stack:
        versions = {}
        for number, weight in ((1, 100), (2, 0)):
            backend = Backend(f"server {number}", certificates)
            stack.callback(backend.stop)
            versions[number] = Version(weight, (backend.endpoint,))
        ports = {name: Endpoint(HOST, find_free_port()) for name in ("gateway", "operator")}
        yield Deployment(models={"digits": versions}, certificates=certificates, **ports)


@contextlib.contextmanager
def run_gateway(deployment, folder, is_ready=True, options=()):
    """The command as a process, once it is ready; ended if it has not ended by itself."""
    file = folder / "deployment.yaml"
    file.write_text(format_deployment(deployment))
    command = [sys.executable, "-c", "from service.cli import main; main()", "gateway", "run", str(file)]
    with subprocess.Popen(
        [*command, "--state-dir", str(folder / "state"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            if is_ready:
                assert any(READY in line for line in iter(process.stdout.readline, ""))
            yield process
        finally:
            process.kill()


def await_line(process, text):
    """The next line of the command's log with a text in it."""
    return next(line for line in iter(process.stdout.readline, "") if text in line)


def ask(deployment):
    """Who answers now; a client that sends again what no server has seen."""
    with open_channel(deployment.gateway, deployment.certificates, is_retrying=True) as channel:
        return infer(channel)


def end(process):
    """End the command as a service manager does."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0


def test_gateway_of_a_file_serves_and_ends_on_a_signal(deployment, tmp_path):
    """No service is started, and nothing is left when it ends."""
    with run_gateway(deployment, tmp_path) as process:
        assert ask(deployment) == "server 1:1"
        end(process)
    with pytest.raises(AdminError):
        AdminSocket(tmp_path / "state" / ADMIN_SOCKET).request("GET", "/ready")


def test_weights_set_for_good_outlive_a_start_unless_the_file_says_otherwise(deployment, tmp_path):
    """What an operator shifted stays while the file is what it was; who edits it means it."""
    operator = OperatorListener.of_state(deployment.operator, deployment.certificates)
    with run_gateway(deployment, tmp_path) as process:
        Traffic(deployment, operator).shift_for_good("digits", {1: 0, 2: 100}, tmp_path / "state")
        assert ask(deployment) == "server 2:2"
        end(process)
    for _ in range(2):
        with run_gateway(deployment, tmp_path) as process:
            assert ask(deployment) == "server 2:2"
            end(process)
    with run_gateway(deployment.with_weights("digits", {1: 9}), tmp_path) as process:
        assert ask(deployment) == "server 1:1"
        end(process)


def test_envoy_that_is_killed_comes_back_with_what_was_applied_last(deployment, tmp_path):
    """The files in place, not those that it was started on."""
    with run_gateway(deployment, tmp_path) as process:
        file = tmp_path / "new.yaml"
        file.write_text(format_deployment(deployment.with_weights("digits", {1: 0, 2: 1})))
        command = [sys.executable, "-c", "from service.cli import main; main()", "gateway", "apply", str(file)]
        subprocess.run([*command, "--state-dir", str(tmp_path / "state")], check=True, timeout=TIMEOUT_S)
        assert ask(deployment) == "server 2:2"
        [envoy] = list_children(process.pid)
        os.kill(envoy, signal.SIGKILL)
        await_change(lambda: list_children(process.pid) not in ([], [envoy]))
        with open_channel(deployment.gateway, deployment.certificates, is_retrying=True) as channel:
            assert infer(channel, timeout_s=TIMEOUT_S, wait_for_ready=True) == "server 2:2"
        end(process)


def test_restart_under_load_fails_no_call_and_keeps_what_operators_set(deployment, tmp_path):
    """Twice: another process serves on the same ports, and the old one is gone when its time is over."""
    operator = OperatorListener.of_state(deployment.operator, deployment.certificates)
    with (
        run_gateway(deployment, tmp_path, options=("--drain-timeout", "1")) as process,
        open_channel(deployment.gateway, deployment.certificates, is_retrying=True) as channel,
    ):
        Traffic(deployment, operator).shift("digits", {1: 0, 2: 100})
        with run_load(lambda: infer(channel), threads=4) as load:
            for _ in range(2):
                load.wait_for_more(50)
                [old] = list_children(process.pid)
                result = CliRunner().invoke(app, ["gateway", "restart", "--state-dir", str(tmp_path / "state")])
                assert result.exit_code == 0, result.output
                await_change(lambda old=old: old not in list_children(process.pid))
                load.wait_for_more(50)
        assert load.failures == []
        assert Traffic(deployment, operator).read_weights("digits") == {1: 0, 2: 100}
        assert ask(deployment) == "server 2:2"
        memory = Path(f"/dev/shm/envoy_shared_memory_{(tmp_path / 'state/run/base-id').read_text()}0")
        assert memory.exists()
        end(process)
    assert not memory.exists()


def test_gateway_that_ends_while_it_is_replaced_finishes_what_the_old_one_has(deployment, tmp_path):
    """A call that began with the old one; no third one takes over meanwhile."""
    is_late = threading.Event()
    request = pb.ModelInferRequest(model_name="digits", model_version="1").SerializeToString()

    def send():
        yield request
        is_late.wait(TIMEOUT_S)
        yield request

    restart = ["gateway", "restart", "--state-dir", str(tmp_path / "state")]
    with (
        run_gateway(deployment, tmp_path, options=("--drain-timeout", "8")) as process,
        open_channel(deployment.gateway, deployment.certificates) as channel,
    ):
        answers = channel.stream_stream(f"{PREFIX}ModelStreamInfer")(send(), timeout=TIMEOUT_S)
        assert next(answers) == b"server 1:1"
        assert CliRunner().invoke(app, restart).exit_code == 0
        again = CliRunner().invoke(app, [*restart, "--timeout", "1"])
        assert (again.exit_code, "no other Envoy has come up" in again.output) == (2, True)
        assert "under way when it was replaced" in await_line(process, "not replaced")
        process.send_signal(signal.SIGTERM)
        is_late.set()
        assert list(answers) == [b"server 1:1"]
        assert process.wait(TIMEOUT_S) == 0


def test_restart_that_cannot_be_leaves_the_old_one_serving(deployment, tmp_path):
    """A bootstrap that Envoy does not take; and without a gateway there is nothing to restart."""
    arguments = ["gateway", "restart", "--state-dir", str(tmp_path / "state"), "--timeout", "3"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "no gateway is running there" in result.output) == (2, True)
    with run_gateway(deployment, tmp_path) as process:
        bootstrap = tmp_path / "state/envoy/bootstrap.yaml"
        rendered = bootstrap.read_bytes()
        bootstrap.write_bytes(b"node: [\n")
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, "no other Envoy has come up" in result.output) == (2, True)
        # Its check, which takes a while, is over.
        assert await_line(process, "not replaced")
        assert ask(deployment) == "server 1:1"
        bootstrap.write_bytes(rendered)
        assert CliRunner().invoke(app, [*arguments[:-1], "60"]).exit_code == 0
        assert ask(deployment) == "server 1:1"
        end(process)


def test_restart_amid_a_change_is_refused(deployment, tmp_path):
    """The change would lose sight of the gateway; the text says who makes it."""
    with run_gateway(deployment, tmp_path) as process:
        with lock_instance(tmp_path / "state" / LOCK):
            result = CliRunner().invoke(app, ["gateway", "restart", "--state-dir", str(tmp_path / "state")])
        assert result.exit_code == 2
        assert f"in use by another sluice, process {os.getpid()}" in result.output
        end(process)


def test_file_that_cannot_be_run_ends_with_why(deployment, tmp_path):
    """Certificates that are not there: Envoy's own words, exit code 1."""
    missing = dataclasses.replace(deployment, certificates=tmp_path / "nowhere")
    with run_gateway(missing, tmp_path, is_ready=False) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "Envoy refuses the configuration" in output
    assert "nowhere" in output


def await_change(is_there):
    """Return when a condition holds."""
    until = time.monotonic() + TIMEOUT_S
    while not is_there():
        assert time.monotonic() < until
        time.sleep(POLL_S)


def test_gateway_whose_certificates_are_about_to_expire_says_so(deployment, tmp_path):
    """In its log, and Envoy in its statistics."""
    ensure_certificates(deployment.certificates, renew=True, now=datetime.now(UTC) - LEAF_LIFETIME + 5 * DAY)
    operator = OperatorListener.of_state(deployment.operator, deployment.certificates)
    with run_gateway(deployment, tmp_path, is_ready=False) as process:
        assert "days_left" in await_line(process, SOON)
        page = operator.request("GET", "/stats/prometheus")
        (sample,) = [line for line in page.splitlines() if line.startswith(DAYS_LEFT)]
        assert int(sample.split()[-1]) in (4, 5)
        end(process)
