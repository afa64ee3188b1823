"""The server's TLS side: key, certificate, clients' authorities and who was revoked, read again when files change."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from service.settings import Settings

Used = TypeVar("Used")

logger = logging.getLogger(__name__)


class CertificateError(Exception):
    """Key and certificates cannot be used, alone or together; the text says why."""


@dataclass(frozen=True)
class Certificates:
    """What the files held at one time, PEM."""

    key: bytes
    chain: bytes
    authorities: bytes
    revoked: bytes | None = None


class CertificateFiles:
    """Key, certificate, client authorities and lists of revoked certificates as files; says what is new.

    Whoever asks while files are replaced one by one may find an old key beside a new certificate. Then those in force
    stay, and the files are read again the next time.
    """

    def __init__(self, settings: Settings):
        paths = (settings.tls_key, settings.tls_cert, settings.tls_client_ca, settings.tls_client_crl)
        self._paths = tuple(path for path in paths if path is not None)
        self._seen = self._stamp()
        self._complaint = ""
        self.current = self._read()

    def refresh(self, use: Callable[[Certificates], Used]) -> Used | None:
        """Put into use what is new; None when nothing is.

        Parameters
        ----------
        use
            Takes what the files hold now; raises CertificateError when it cannot be used, which is logged once.
        """
        try:
            # Before reading: what changes meanwhile is new the next time.
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            certificates = self._read()
            used = use(certificates)
        except (OSError, CertificateError) as error:
            self._complain(str(error))
            return None
        self._seen, self.current, self._complaint = stamp, certificates, ""
        logger.info("certificates reloaded", extra={"certificate": str(self._paths[1])})
        return used

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            logger.error("certificates could not be read again", extra={"reason": reason})
        self._complaint = reason

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        # The size, too: the clock of files stands still for milliseconds.
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in map(Path.stat, self._paths))

    def _read(self) -> Certificates:
        return Certificates(*(path.read_bytes() for path in self._paths))


class CertificateWatch:
    """A thread that asks the files again and again.

    Parameters
    ----------
    use
        As that of CertificateFiles.refresh.
    """

    def __init__(self, files: CertificateFiles, use: Callable[[Certificates], object], interval_s: float = 1.0):
        self._files = files
        self._use = use
        self._interval_s = interval_s
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(self._interval_s):
            try:
                self._files.refresh(self._use)
            except Exception:
                logger.exception("certificates could not be replaced")
