"""The server's TLS side: certificates that are read again when their files change, clients' certificates required."""

import logging
from pathlib import Path

import grpc

from service.settings import Settings

logger = logging.getLogger(__name__)


class CertificateFiles:
    """Key, certificate and client authorities as files; says what is new since it was asked last.

    A handshake that comes while files are replaced one by one may see an old key beside a new certificate. Then they
    are kept as they were, and read again at the next handshake.
    """

    def __init__(self, settings: Settings):
        self._paths = (settings.tls_key, settings.tls_cert, settings.tls_client_ca)
        self._seen = self._stamp()
        self._current = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Server credentials that follow the files; a client without a certificate fails in the handshake."""
        return grpc.dynamic_ssl_server_credentials(self._current, self._fetch, require_client_authentication=True)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpcio before each handshake, from a thread of its own; None keeps what is in force."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            self._current = self._read()
        except OSError as error:
            logger.error("certificates could not be read again", extra={"reason": str(error)})
            return None
        self._seen = stamp
        logger.info("certificates reloaded", extra={"certificate": str(self._paths[1])})
        return self._current

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple((status.st_ino, status.st_mtime_ns) for status in map(Path.stat, self._paths))

    def _read(self) -> grpc.ServerCertificateConfiguration:
        key, chain, authorities = (path.read_bytes() for path in self._paths)
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)
