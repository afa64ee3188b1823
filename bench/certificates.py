"""Certificates for servers that are measured over mTLS, and those with which they are called."""

from dataclasses import dataclass
from pathlib import Path

from bench.loadgen import Credentials
from certs import ensure_certificates


@dataclass(frozen=True)
class Certificates:
    """The PEM files in a folder: the server's pair, and the authority of its clients."""

    certificate: Path
    key: Path
    client_authority: Path
    client: Credentials

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        """Issue them into a folder."""
        ensure_certificates(folder)
        authority = folder / "internal-ca.pem"
        client = Credentials(authority, folder / "gateway-upstream.pem", folder / "gateway-upstream.key")
        return cls(folder / "service.pem", folder / "service.key", authority, client)

    @property
    def sluice_options(self) -> list[str]:
        """For `sluice serve`."""
        files = {"cert": self.certificate, "key": self.key, "client-ca": self.client_authority}
        return [f"--tls-{name}={path}" for name, path in files.items()]
