"""Certificates and lists of revoked ones that come to their end: the log warns ahead, metrics say when."""

import logging
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from service.exposition import Family, format_labels

# How long before the end the log warns, in days; the last is the end itself.
STAGES_DAYS = (30, 7, 1, 0)
CHECK_S = 10.0
METRIC = "sluice_certificate_expiry_timestamp_seconds"
MEANING = "When the certificate, or the list of revoked ones, expires, in seconds since the epoch"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """The end of one certificate or list, where it stands, and whose it is."""

    kind: str
    path: Path
    subject: str
    begins: datetime
    expires: datetime

    def find_stage(self, now: datetime) -> int | None:
        """The last of STAGES_DAYS that has come; None while there is time.

        What is made for less than a stage's time is replaced later than that.
        """
        lifetime, left = self.expires - self.begins, self.expires - now
        due = [days for days in STAGES_DAYS if left <= timedelta(days=days) < lifetime]
        return min(due, default=None)


class ExpiryWatch:
    """Warns of what each of some files holds once a stage; files that cannot be read are others' to complain of.

    Parameters
    ----------
    paths
        Files of certificates and lists of revoked ones, PEM, one or several in each; read again each time.
    """

    def __init__(self, paths: Iterable[Path]):
        self._paths = tuple(paths)
        self._told: dict[Ending, int] = {}
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry", daemon=True)

    def start(self) -> None:
        """Check now and every CHECK_S, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self, now: datetime | None = None) -> None:
        """Log what has come to a new stage by `now`, timezone-aware; the clock's when None."""
        now = now or datetime.now(UTC)
        told = {}
        for ending in self._find_endings():
            stage = ending.find_stage(now)
            if stage is None:
                continue
            if stage < self._told.get(ending, STAGES_DAYS[0] + 1):
                _tell(ending, stage, now)
            told[ending] = stage
        self._told = told

    def describe(self) -> list[Family]:
        """The metric: of several of one subject in a file, the first that ends."""
        family = Family(METRIC, "gauge", MEANING)
        ends: dict[tuple[str, str], datetime] = {}
        for ending in self._find_endings():
            key = str(ending.path), ending.subject
            ends[key] = min(ending.expires, ends.get(key, ending.expires))
        for (path, subject), end in ends.items():
            family.add(int(end.timestamp()), format_labels({"path": path, "subject": subject}))
        return [family]

    def _run(self) -> None:
        while True:
            self.check()
            if self._is_stopped.wait(CHECK_S):
                return

    def _find_endings(self) -> list[Ending]:
        return [ending for path in self._paths for ending in _read_endings(path)]


def _read_endings(path: Path) -> list[Ending]:
    try:
        content = path.read_bytes()
        return [*_read_certificates(path, content), *_read_lists(path, content)]
    except (OSError, ValueError):
        return []


def _read_certificates(path: Path, content: bytes) -> Iterator[Ending]:
    if CERTIFICATE in content:
        for each in x509.load_pem_x509_certificates(content):
            name = each.subject.rfc4514_string()
            yield Ending("certificate", path, name, each.not_valid_before_utc, each.not_valid_after_utc)


def _read_lists(path: Path, content: bytes) -> Iterator[Ending]:
    for found in LIST.findall(content):
        each = x509.load_pem_x509_crl(found)
        if each.next_update_utc is not None:
            name = each.issuer.rfc4514_string()
            yield Ending("list of revoked certificates", path, name, each.last_update_utc, each.next_update_utc)


def _tell(ending: Ending, stage: int, now: datetime) -> None:
    fields = {
        "path": str(ending.path),
        "subject": ending.subject,
        "expires": ending.expires.isoformat(),
        "days_left": (ending.expires - now).days,
    }
    if stage == 0:
        logger.error("%s has expired", ending.kind, extra=fields)
    else:
        logger.warning("%s expires soon", ending.kind, extra=fields)
