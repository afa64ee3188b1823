"""A gateway that asks a control plane what to go by, and has of its own only its keys and where it listens."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from certs.files import replace_file
from certs.identities import CONTROL_URI
from service.deployment import Endpoint
from service.envoy_check import check_file
from service.gateway import render_member


@dataclass(frozen=True, kw_only=True)
class FleetMember:
    """One gateway of a fleet.

    Attributes
    ----------
    control
        Where the control plane listens, and in identity the URI name that it must prove.
    node
        Its own name, by which the control plane shows it.
    gateway, operator
        Where it listens, if not where the deployment says.
    client_crl
        Its file of lists of revoked certificates.
    """

    control: Endpoint
    node: str
    certificates: Path
    gateway: Endpoint | None = None
    operator: Endpoint | None = None
    identity: str = CONTROL_URI
    client_crl: Path | None = None

    @property
    def placement(self) -> Mapping[str, str]:
        """What it tells the control plane of where it listens."""
        places = {"gateway": self.gateway, "operator": self.operator}
        return {name: str(endpoint) for name, endpoint in places.items() if endpoint is not None}


def install_member(member: FleetMember, state_folder: Path, envoy: Path) -> None:
    """Put in place what Envoy is started with, checked by it; GatewayError where it refuses."""
    files = render_member(member, member.certificates, member.client_crl)
    _check(files, envoy)
    for path, content in files.items():
        target = state_folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)


def _check(files: Mapping[str, bytes], envoy: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sluice-gateway-") as folder:
        for path, content in files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        check_file(Path(folder), "envoy/bootstrap.yaml", envoy)
