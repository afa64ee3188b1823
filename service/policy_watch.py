"""The policy's file, read again when it changes; one that cannot be used leaves the policy in force as it is."""

import logging
import threading
from pathlib import Path

from service.access_file import read_access
from service.access_policy import AccessPolicy
from service.deployment import DeploymentError
from service.guard import Guard

logger = logging.getLogger(__name__)


def read_policy(path: Path) -> AccessPolicy:
    """The policy of a deployment file. Raises DeploymentError, also for a file without one."""
    policy = read_access(path)
    if policy is None:
        raise DeploymentError(f"{path}: expected a section 'access', which is missing")
    return policy


class PolicyWatch:
    """A thread that looks at the file again and again, as CertificateWatch does at certificates.

    Parameters
    ----------
    policy
        The file.
    guard
        Who is to decide by what it says.
    """

    def __init__(self, path: Path, guard: Guard, interval_s: float = 1.0):
        self._path = path
        self._guard = guard
        self._interval_s = interval_s
        # Nothing is seen yet: what has changed since the guard's policy was read is new the first time.
        self._seen: tuple[int, int, int] | None = None
        self._complaint = ""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(self._interval_s):
            try:
                self._refresh()
            except Exception:
                logger.exception("the policy could not be replaced")

    def _refresh(self) -> None:
        try:
            # Before reading: what changes meanwhile is new the next time.
            stamp = self._stamp()
            if stamp == self._seen:
                return
            policy = read_policy(self._path)
        except (OSError, DeploymentError) as error:
            self._complain(str(error))
            return
        self._seen, self._complaint = stamp, ""
        if policy != self._guard.policy:
            self._guard.replace(policy)
            logger.info("policy reloaded", extra={"policy": str(self._path)})

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            logger.error("policy could not be read again", extra={"reason": reason})
        self._complaint = reason

    def _stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
