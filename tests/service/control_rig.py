"""A real control plane, with real gateways and gRPC clients that follow it, each a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time

import grpc
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from gateway_rig import open_channel

from certs.identities import AUTHORITIES, CLIENT_URI, GATEWAY_URI
from service.admin import AdminError, AdminSocket
from service.deployment import Endpoint
from service.deployment_file import format_deployment
from service.gateway import ADMIN_SOCKET
from service.running_gateway import RunningGateway
from tests.free_ports import HOST, find_free_port

RUN_CLI = [sys.executable, "-c", "from service.cli import main; main()"]
TIMEOUT_S = 60
POLL_S = 0.05
# No call lasts long here.
DRAIN = ["--drain-timeout", "0.2"]


class Control:
    """`sluice control serve` on a deployment, and what operators ask it."""

    def __init__(self, folder, deployment):
        self.folder = folder
        self.state = folder / "control-state"
        self.deployment = deployment
        self._file = folder / "deployment.yaml"
        self._process = None

    def start(self):
        """Start it, and return when it serves."""
        self._file.write_text(format_deployment(self.deployment))
        self._process = start_command(["control", "serve", str(self._file), *self._where, *DRAIN], "Ctrl-C stops.")

    def stop(self):
        """End it as a service manager does, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=TIMEOUT_S)
            assert self._process.returncode == 0
            self._process = None

    def apply(self, deployment, *options):
        """Put a deployment in force; exit code, and all that was said."""
        self._file.write_text(format_deployment(deployment))
        return run_command(["control", "apply", str(self._file), *self._where, *options])

    def show(self):
        """What is shown."""
        code, text = run_command(["control", "show", *self._where])
        assert code == 0, text
        return text

    def await_followers(self, count):
        """Return what is shown once so many follow, and have taken what they were sent."""
        until = time.monotonic() + TIMEOUT_S
        while f"followers: {count}" not in (text := self.show()) or not is_settled(text):
            assert time.monotonic() < until, text
        return text

    def make_bootstrap(self, node):
        """The file of a gRPC client."""
        code, text = run_command(["control", "bootstrap", str(self._file), "--node", node])
        assert code == 0, text
        path = self.folder / f"{node}.json"
        path.write_text(text)
        return path

    @property
    def _where(self):
        return ["--state-dir", str(self.state)]


class Member:
    """`sluice gateway run --control`, one gateway of a fleet; `own` says where it listens if not as all do."""

    def __init__(self, folder, node, deployment, **own):
        self.state = folder / node
        self.certificates = deployment.certificates
        self.endpoint = own.get("listen", deployment.gateway)
        self._deployment, self._node, self._own = deployment, node, own
        self._process = None

    def start(self, *, is_ready=True):
        """Start it, and return when it serves, unless it cannot yet."""
        options = ["--control", str(self._deployment.control.listen), "--node", self._node]
        options += ["--certificates", str(self.certificates), "--state-dir", str(self.state)]
        options += [part for name, endpoint in self._own.items() for part in (f"--{name}", str(endpoint))]
        self._process = start_command(["gateway", "run", *options], "Ctrl-C drains" if is_ready else None)

    def stop(self):
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.send_signal(15)
            self._process.communicate(timeout=TIMEOUT_S)
            self._process = None

    def connect(self):
        """A channel of a client that sends again what no server has seen."""
        return open_channel(self.endpoint, self.certificates, is_retrying=True)

    def read_numbers(self, *names):
        """Statistics of Envoy, by the last part of their names; None where it does not answer."""
        with contextlib.suppress(AdminError):
            found = RunningGateway(AdminSocket(self.state / ADMIN_SOCKET)).read_numbers(names)
            return {name.rpartition(".")[2]: value for name, value in found.items()}


class XdsClient:
    """tests/service/xds_client.py, running."""

    def __init__(self, target, bootstrap):
        command = [sys.executable, "-m", "tests.service.xds_client", target]
        environment = os.environ | {"GRPC_XDS_BOOTSTRAP": str(bootstrap)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    @contextlib.contextmanager
    def load(self):
        """Calls without pause while the block runs, none of which may fail."""
        self._write(json.dumps({"model": "digits"}))
        yield
        self._write("")
        answers, failures = self._read()
        assert failures == {}
        assert answers

    def call(self, calls, model="digits", **options):
        """What comes of so many calls: answers by version, and failures."""
        self._write(json.dumps({"model": model, "calls": calls, **options}))
        return self._read()

    def close(self):
        """End it."""
        self._process.communicate(timeout=TIMEOUT_S)

    def _write(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self):
        came = json.loads(self._process.stdout.readline())
        return came["answers"], came["failures"]


def trust_clients(certificates):
    """Options of a server that gateways and clients both call: two authorities, and a name of each."""
    both = certificates / "both.pem"
    both.write_bytes(b"".join((certificates / f"{name}.pem").read_bytes() for name in AUTHORITIES))
    files = {"--tls-cert": "service.pem", "--tls-key": "service.key", "--tls-client-ca": "both.pem"}
    options = [part for option, name in files.items() for part in (option, str(certificates / name))]
    return [*options, "--allowed-client", GATEWAY_URI, "--allowed-client", CLIENT_URI]


def start_command(arguments, ready):
    """A command of `sluice`, once it has printed that it is ready."""
    process = subprocess.Popen([*RUN_CLI, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ready is not None:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if ready in line:
                return process
        raise AssertionError(f"{arguments} ended with {process.wait(TIMEOUT_S)}: {''.join(lines)}")
    return process


def run_command(arguments):
    """Exit code and output of a command of `sluice`."""
    done = subprocess.run([*RUN_CLI, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout + done.stderr


def is_settled(shown):
    """Whether all that `sluice control show` shows as sent is acknowledged."""
    states = [line.split() for line in shown.splitlines() if " sent " in line]
    return bool(states) and all(state[2] == state[4] for state in states)


@contextlib.contextmanager
def open_control(deployment, identity, request):
    """The control plane's answers to a first request, shown a certificate by its name, or none."""
    folder = deployment.certificates
    pair = [(folder / f"{identity}.{suffix}").read_bytes() for suffix in ("key", "pem")] if identity else []
    credentials = grpc.ssl_channel_credentials((folder / "internal-ca.pem").read_bytes(), *pair)
    with grpc.secure_channel(str(deployment.control.listen), credentials) as channel:
        yield AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources(iter([request]), timeout=TIMEOUT_S)


def find_ports(*names):
    """An endpoint on a free port for each name."""
    return {name: Endpoint(HOST, find_free_port()) for name in names}
