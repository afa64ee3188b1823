"""The two programs of a deployment: how each is started, when it is ready, and how it is drained."""

import contextlib
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from certs.identities import GATEWAY_URI
from service.admin import AdminError, AdminSocket
from service.child import Child
from service.envoy_check import FOLDER, check_file, find_envoy
from service.gateway import ADMIN_SOCKET
from service.plan import Plan
from service.running_gateway import RunningGateway

POLL_S = 0.05
PROBE_TIMEOUT_S = 1.0
# How long Envoy tells its clients to leave before it closes the door, when it is to end.
GATEWAY_DRAIN_S = 2
STOP_TIMEOUT_S = 5.0
LISTENERS = 2
BOOTSTRAP = f"{FOLDER}/bootstrap.yaml"
# Number by which an Envoy finds the one that it replaces; every first one of a line takes one that is free.
BASE_ID = "run/base-id"
# In a folder that is the owner's alone: whoever can write to it can end Envoy.
HANDOVER_SOCKET = "run/handover"
# Wherever the parent found the package, the child finds the same; never one in the working directory.
RUN_CLI = "import sys; sys.path.insert(0, sys.argv.pop(1)); from service.cli import main; main()"


class ServiceDaemon:
    """`sluice serve` behind the gateway: it takes calls from nobody else."""

    name = "service"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def start(self) -> Child:
        """Start it, in the supervisor's own working directory."""
        plan, certificates = self._plan, self._plan.certificates.resolve()
        options = {
            "--model-repository": plan.model_repository.resolve(),
            "--host": plan.service.host,
            "--grpc-port": plan.service.port,
            "--tls-cert": certificates / "service.pem",
            "--tls-key": certificates / "service.key",
            "--tls-client-ca": certificates / "internal-ca.pem",
            "--allowed-client": GATEWAY_URI,
            "--drain-timeout": plan.drain_timeout_s,
            "--max-message-bytes": plan.max_message_bytes,
        }
        root = str(Path(__file__).resolve().parent.parent)
        arguments = [str(part) for option in options.items() for part in option]
        command = [sys.executable, "-P", "-c", RUN_CLI, root, "serve", *arguments]
        return Child(self.name, command, Path.cwd(), plan.log_file(self.name))

    def is_ready(self) -> bool:
        """Whether its health service, asked as the gateway asks, says SERVING."""
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        certificates = self._plan.certificates
        credentials = grpc.ssl_channel_credentials(
            (certificates / "internal-ca.pem").read_bytes(),
            (certificates / "gateway-upstream.key").read_bytes(),
            (certificates / "gateway-upstream.pem").read_bytes(),
        )
        # Its certificate is for localhost, whichever address it listens on.
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_http_proxy", 0)]
        with grpc.secure_channel(str(self._plan.service), credentials, options) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S
                )
            except grpc.RpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def drain(self, child: Child, is_forced: Callable[[float], bool]) -> None:
        """End it; it finishes what it has accepted by itself."""
        child.terminate()
        deadline = time.monotonic() + self._plan.drain_timeout_s + STOP_TIMEOUT_S
        while child.exit_code() is None and time.monotonic() < deadline and not is_forced(POLL_S):
            pass


class GatewayDaemon:
    """Envoy, on the configuration in the state folder."""

    name = "gateway"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.executable = find_envoy(plan.envoy)
        self._admin = AdminSocket(plan.state_folder / ADMIN_SOCKET)
        # Of the one that serves or is about to: how many have gone before it since the first.
        self._epoch = 0
        self._overrides: dict[str, str] = {}

    def start(self) -> Child:
        """Start it in the state folder, to which the paths in its configuration are relative."""
        self._epoch = 0
        self._overrides = {}
        self.remove_memory()
        return self._start(0, "--use-dynamic-base-id", "--base-id-path", BASE_ID)

    @property
    def handover_timeout_s(self) -> int:
        """How long one that was replaced stays after its successor has come up."""
        return math.ceil(GATEWAY_DRAIN_S + self._plan.drain_timeout_s + 1)

    def start_successor(self) -> Child:
        """Start the one that takes its sockets over, of the executable that is there now.

        The old one ends by itself when what it has under way has had its time. It has no admin from now on.

        Raises
        ------
        GatewayError, AdminError, OSError
            It cannot be started. Found out before: one that dies while it starts keeps all later ones from starting.
        """
        self.executable = find_envoy(self._plan.envoy)
        check_file(self._plan.state_folder, BOOTSTRAP, self.executable)
        self._overrides = RunningGateway(self._admin).read_overrides()
        base_id = (self._plan.state_folder / BASE_ID).read_text().strip()
        successor = self._start(self._epoch + 1, "--base-id", base_id)
        self._epoch += 1
        return successor

    def settle_successor(self) -> None:
        """Give the one that has come up what operators gave the admin of the one that it replaced; AdminError."""
        if self._overrides:
            self._admin.request("POST", f"/runtime_modify?{urlencode(self._overrides)}")
            self._overrides = {}

    def give_up_successor(self) -> None:
        """Note that it has failed, so that the next one finds the old one."""
        self._epoch -= 1

    def remove_memory(self) -> None:
        """Remove what this line of Envoys shares in memory, for they leave it behind; to call when none follows."""
        with contextlib.suppress(OSError):
            base_id = (self._plan.state_folder / BASE_ID).read_text().strip()
            # Envoy has its numbers in steps of ten.
            Path(f"/dev/shm/envoy_shared_memory_{base_id}0").unlink(missing_ok=True)

    def _start(self, epoch: int, *identity: str) -> Child:
        options = {
            "-c": BOOTSTRAP,
            "-l": "warning",
            "--concurrency": self._plan.gateway_threads,
            # After this, connections of listeners that were changed are cut, whatever calls they carry.
            "--drain-time-s": max(GATEWAY_DRAIN_S, math.ceil(self._plan.drain_timeout_s)),
            "--drain-strategy": "immediate",
            "--parent-shutdown-time-s": self.handover_timeout_s,
            "--restart-epoch": epoch,
            "--socket-path": HANDOVER_SOCKET,
            "--socket-mode": "600",
        }
        arguments = [str(part) for option in options.items() for part in option]
        command = [self.executable, *identity, *arguments]
        return Child(self.name, command, self._plan.state_folder, self._plan.log_file(self.name))

    def is_ready(self) -> bool:
        """Whether it says so and both its listeners are there: it goes on without one whose port is taken.

        The answer may be that of the one which it replaces: each counts its generation.
        """
        try:
            is_live = self._admin.request("GET", "/ready").strip() == "LIVE"
            wanted = [LISTENERS, self._epoch + 1]
            return is_live and wanted == self._read_stats(
                "listener_manager.total_listeners_active", "server.hot_restart_generation"
            )
        except AdminError:
            return False

    def drain(self, child: Child, is_forced: Callable[[float], bool]) -> None:
        """Send clients away, close the door, let what is under way finish, then end it."""
        self.remove_memory()
        try:
            self._admin.request("POST", "/healthcheck/fail")
            self._admin.request("POST", "/drain_listeners?graceful")
            start, is_open = time.monotonic(), True
            while time.monotonic() < start + self._plan.drain_timeout_s and not is_forced(POLL_S):
                connections, requests = self._read_stats(
                    "http.gateway.downstream_cx_active", "http.gateway.downstream_rq_active"
                )
                if connections == 0 or (requests == 0 and not is_open):
                    break
                if is_open and time.monotonic() > start + GATEWAY_DRAIN_S:
                    self._admin.request("POST", "/drain_listeners")
                    is_open = False
        except AdminError:
            # It is on its way down already.
            pass
        child.terminate()

    def _read_stats(self, *names: str) -> list[int]:
        pattern = "|".join(map(re.escape, names))
        text = self._admin.request("GET", f"/stats?{urlencode({'filter': f'^({pattern})$'})}")
        values = dict(line.split(": ") for line in text.splitlines())
        return [int(values.get(name, 0)) for name in names]
