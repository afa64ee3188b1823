"""A gateway, the real Envoy, in front of two real servers of the same models."""

from contextlib import ExitStack, contextmanager

from certs import ensure_certificates
from certs.identities import GATEWAY_URI
from service.deployment import Deployment, Endpoint, Version, assign_weights
from service.model_folders import list_models
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.service.gateway_rig import HOST, START_TIMEOUT_S, Rig, find_free_port


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
    """Two servers, the gateway's rig, and who calls it."""

    def __init__(self, backends, rig):
        self.backends = backends
        self.rig = rig
        self.certificates = rig.certificates
        gateway = rig.deployment.gateway
        self.target = Target.of_folder(str(gateway), rig.certificates, "gateway-ca", "client", is_gateway=True)


@contextmanager
def run_twins(repository, state_folder, *, weights=None, options=(), max_message_bytes=None):
    """Start two servers and the gateway; `weights` is by model and version."""
    certificates = state_folder / "certs"
    ensure_certificates(certificates)
    limit = {"max_message_bytes": max_message_bytes} if max_message_bytes else {}
    flags = ("--max-message-bytes", max_message_bytes) if max_message_bytes else ()
    with ExitStack() as stack:
        started = [
            ServerProcess(repository, *tls_options(certificates, allowed=GATEWAY_URI), *flags, *options)
            for _ in range(2)
        ]
        backends = [stack.enter_context(backend) for backend in started]
        deployment = Deployment(
            models=_weigh(repository, tuple(backend.endpoint for backend in backends), weights or {}),
            certificates=certificates,
            gateway=Endpoint(HOST, find_free_port()),
            operator=Endpoint(HOST, find_free_port()),
            **limit,
        )
        rig = Rig(state_folder, deployment, START_TIMEOUT_S)
        stack.callback(rig.stop)
        rig.start()
        yield TwinDeployment(backends, rig)


def _weigh(repository, endpoints, weights):
    return {
        folder.name: {
            number: Version(weight, endpoints)
            for number, weight in (assign_weights(folder.versions) | weights.get(folder.name, {})).items()
        }
        for folder in list_models(repository)
    }
