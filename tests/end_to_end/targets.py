"""Where and as whom a client calls: one description for stubs, tritonclient, grpcurl and our own commands."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

CHANNEL_OPTIONS = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # A connection for each channel, so that tests do not meet on one.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
    # A failure is to be seen, not smoothed over by the client.
    "grpc.enable_retries": 0,
}


@dataclass(frozen=True)
class Target:
    """A server or gateway and the certificates with which it is called; plain text without any."""

    address: str
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    is_gateway: bool = False

    @classmethod
    def of_folder(cls, address, folder, authority, identity, **options):
        """With files of a folder of certificates; without an identity, no certificate is shown."""
        files = (folder / f"{identity}.pem", folder / f"{identity}.key") if identity else ()
        return cls(address, folder / f"{authority}.pem", *files, **options)

    def connect(self, **options):
        """A channel of its own; options are grpcio's, with underscores."""
        return self._open(grpc.insecure_channel, grpc.secure_channel, options)

    def connect_async(self, **options):
        """As `connect`, for the running loop."""
        return self._open(grpc.aio.insecure_channel, grpc.aio.secure_channel, options)

    def _open(self, open_plain, open_secure, options):
        chosen = list((CHANNEL_OPTIONS | {f"grpc.{name}": value for name, value in options.items()}).items())
        if self.authority is None:
            return open_plain(self.address, chosen)
        authority, key, certificate = (
            path and path.read_bytes() for path in (self.authority, self.key, self.certificate)
        )
        return open_secure(self.address, grpc.ssl_channel_credentials(authority, key, certificate), chosen)

    @property
    def grpcurl_flags(self):
        """How grpcurl is told."""
        if self.authority is None:
            return ["-plaintext"]
        return ["-cacert", str(self.authority), "-cert", str(self.certificate), "-key", str(self.key)]

    @property
    def sluice_flags(self):
        """How `sluice infer` and `sluice models` are told."""
        if self.authority is None:
            return ["--url", self.address, "--insecure"]
        files = ("--ca", self.authority, "--cert", self.certificate, "--key", self.key)
        return ["--url", self.address, *map(str, files)]

    def to_json(self):
        """For another process."""
        return json.dumps({name: value and str(value) for name, value in vars(self).items()})
