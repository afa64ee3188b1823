"""A gateway, the real Envoy, in front of two real servers of the same models."""

import json
import time

from certs import ensure_certificates
from certs.identities import GATEWAY_URI
from service.deployment import DEFAULT_MAX_MESSAGE_BYTES, Deployment, Endpoint, Version, assign_weights
from service.model_folders import list_models
from tests.end_to_end.models import VERSIONS
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.free_ports import HOST, find_free_port
from tests.service.gateway_rig import START_TIMEOUT_S, Rig

POLL_S = 0.05


def tls_options(certificates, *, allowed=None):
    """Flags of a server that takes clients of the internal authority, or of them only one."""
    options = (
        "--tls-cert",
        certificates / "service.pem",
        "--tls-key",
        certificates / "service.key",
        "--tls-client-ca",
        certificates / "internal-ca.pem",
    )
    return (*options, "--allowed-client", allowed) if allowed else options


class TwinDeployment:
    """Two servers, the gateway's rig, and the way of a client to it; leaving it as a context ends them all.

    Parameters
    ----------
    weights
        By model and version, for those that do not leave all to the highest version.
    routing
        By model, what is declared besides.
    drain_timeout_s
        How long an Envoy that is replaced, or whose listeners are, keeps what it has under way.
    options
        More flags of each server.
    """

    def __init__(
        self,
        repository,
        state_folder,
        *,
        weights=None,
        max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        routing=None,
        drain_timeout_s=30.0,
        options=(),
    ):
        self.certificates = state_folder / "certs"
        ensure_certificates(self.certificates)
        self._repository = repository
        self._options = (
            *tls_options(self.certificates, allowed=GATEWAY_URI),
            "--max-message-bytes",
            max_message_bytes,
            *options,
        )
        self.backends = [ServerProcess(repository, *self._options) for _ in range(2)]
        deployment = Deployment(
            models=self._weigh(tuple(backend.endpoint for backend in self.backends), weights or {}),
            certificates=self.certificates,
            gateway=Endpoint(HOST, find_free_port()),
            operator=Endpoint(HOST, find_free_port()),
            max_message_bytes=max_message_bytes,
            routing=routing or {},
        )
        self.rig = Rig(state_folder, deployment, START_TIMEOUT_S, drain_timeout_s)
        self.rig.start()
        address = str(deployment.gateway)
        self.target = Target.of_folder(address, self.certificates, "gateway-ca", "client", is_gateway=True)

    def _weigh(self, endpoints, weights):
        return {
            folder.name: {
                number: Version(weight, endpoints)
                for number, weight in (assign_weights(folder.versions) | weights.get(folder.name, {})).items()
            }
            for folder in list_models(self._repository)
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.rig.stop()
        for backend in self.backends:
            backend.terminate()
            backend.wait()

    def restart(self, *ended):
        """Start servers that have ended again, on their ports, and return when the gateway sends them calls."""
        self.start_again(*ended)
        self.await_healthy(2)

    def start_again(self, *ended):
        """Start servers that have ended again, on their ports, and return when they say that they are ready."""
        for backend in ended:
            place, port = self.backends.index(backend), backend.endpoint.port
            self.backends[place] = ServerProcess(self._repository, *self._options, "--grpc-port", port)
        for backend in self.backends:
            backend.await_event("ready")

    def await_healthy(self, count):
        """Return when the gateway takes so many of the servers for healthy, for every version of `adder`."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while {self._count_healthy(f"adder@{version}") for version in VERSIONS} != {count}:
            assert time.monotonic() < deadline
            time.sleep(POLL_S)

    def _count_healthy(self, cluster):
        stats = json.loads(self.rig.admin.request("GET", f"/stats?format=json&filter={cluster}.membership_healthy"))
        return stats["stats"][0]["value"]
