"""A daemon that is kept running: started again when it dies, and, the gateway, replaced while it serves."""

import logging
import time
from collections.abc import Callable

from service.admin import AdminError
from service.child import Child
from service.daemons import POLL_S, STOP_TIMEOUT_S, GatewayDaemon, ServiceDaemon
from service.envoy_check import GatewayError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
READY_POLL_S = 0.2
# What dies at once again and again is started ever more slowly; a minute of life is forgiven.
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
BACKOFF_FORGIVEN_S = 60.0


class KeptDaemon:
    """The child of the moment, the one before, and when the next one may start."""

    def __init__(self, daemon: ServiceDaemon | GatewayDaemon) -> None:
        self.daemon = daemon
        self.child: Child | None = None
        # While there is one, the child takes over from it, or has.
        self.predecessor: Child | None = None
        self._is_ready = False
        self._started_at = 0.0
        self._start_at = 0.0
        self._backoff_s = BACKOFF_FIRST_S

    def start(self) -> None:
        """Start the daemon."""
        self._watch(self.daemon.start())

    def replace(self) -> None:
        """Start a successor, if the daemon can have one, the child runs well, and none is taking over already."""
        if not isinstance(self.daemon, GatewayDaemon):
            return
        if self.predecessor is not None or not self._is_ready:
            self._tell_not_replaced("one is starting, or still finishes what it had under way when it was replaced")
            return
        try:
            successor = self.daemon.start_successor()
        except (AdminError, GatewayError, OSError) as error:
            self._tell_not_replaced(str(error))
            return
        self.predecessor = self.child
        self._watch(successor)

    def _watch(self, child: Child) -> None:
        self.child = child
        self._is_ready = False
        self._started_at = time.monotonic()

    def _tell_not_replaced(self, reason: str) -> None:
        log.error("not replaced", extra={"child": self.daemon.name, "reason": reason})

    def probe(self) -> bool:
        """Whether the child is ready, or has been."""
        if not self._is_ready and self.daemon.is_ready():
            self._is_ready = True
            self._settle()
        return self._is_ready

    def _settle(self) -> None:
        if not isinstance(self.daemon, GatewayDaemon):
            return
        try:
            self.daemon.settle_successor()
        except AdminError as error:
            log.error("what operators have set is lost", extra={"child": self.daemon.name, "reason": str(error)})

    def tend(self) -> float:
        """Bury a child that has died and start the next when it is time; returns seconds until there is more to do."""
        if self.predecessor is not None:
            self._tend_predecessor()
        if self.child is not None and self.child.exit_code() is not None:
            self._bury()
        if self.child is not None:
            return self._watch_on()
        left = self._start_at - time.monotonic()
        if left > 0:
            return left
        self.start()
        return READY_POLL_S

    def _tend_predecessor(self) -> None:
        """Bury the one that has handed over; keep it when its successor has died before that."""
        if self.predecessor.exit_code() is not None:
            self._bury_predecessor()
        elif self.child.exit_code() is not None and not self._is_ready:
            self._tell_not_replaced(self.child.read_log_tail())
            self.child.close()
            self.daemon.give_up_successor()
            self.child, self.predecessor, self._is_ready = self.predecessor, None, True
        elif self._is_ready and time.monotonic() - self._started_at > self.daemon.handover_timeout_s + START_TIMEOUT_S:
            # It should have ended by itself long ago, and nothing can follow while it is there.
            self.predecessor.kill()

    def _bury_predecessor(self) -> None:
        log.info("replaced", extra={"child": self.daemon.name, "pid": self.child.pid, "old": self.predecessor.pid})
        self.predecessor.close()
        self.predecessor = None

    def _watch_on(self) -> float:
        if self._is_ready:
            return BACKOFF_FORGIVEN_S
        if self.probe():
            log.info("restarted", extra={"child": self.daemon.name, "pid": self.child.pid})
            return BACKOFF_FORGIVEN_S
        if time.monotonic() - self._started_at > START_TIMEOUT_S:
            log.error("not ready", extra={"child": self.daemon.name, "log": self.child.read_log_tail()})
            self.child.kill()
        # What operators have set is to hold with the successor as soon as it takes calls.
        return POLL_S if self.predecessor is not None else READY_POLL_S

    def _bury(self) -> None:
        self._stop_predecessor()
        now, tail = time.monotonic(), self.child.read_log_tail()
        code = self.child.close()
        self.child = None
        if now - self._started_at > BACKOFF_FORGIVEN_S:
            self._backoff_s = BACKOFF_FIRST_S
        log.error("died", extra={"child": self.daemon.name, "code": code, "restart_in_s": self._backoff_s, "log": tail})
        self._start_at = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_LAST_S)

    def end(self, is_forced: Callable[[float], bool]) -> None:
        """Drain the child and end it.

        Parameters
        ----------
        is_forced
            Waits for so many seconds, or until there is nothing to wait for any more; whether to hurry then.
        """
        if self.predecessor is not None:
            self._await_handover(is_forced)
        if self.child is None:
            return
        if self.child.exit_code() is None:
            self.daemon.drain(self.child, is_forced)
        code = self.child.stop(0 if is_forced(0) else STOP_TIMEOUT_S)
        log.info("ended", extra={"child": self.daemon.name, "code": code})
        self.child = None

    def _await_handover(self, is_forced: Callable[[float], bool]) -> None:
        """Let a successor come up and its predecessor finish, which has no admin by which it could be drained."""
        until = self._started_at + self.daemon.handover_timeout_s + STOP_TIMEOUT_S
        while self.predecessor is not None and time.monotonic() < until and not is_forced(POLL_S):
            self._tend_predecessor()
            if self.child.exit_code() is None:
                self.probe()
        self._stop_predecessor()

    def _stop_predecessor(self) -> None:
        """End it at once, whatever it has under way; it holds the ports until it is gone."""
        if self.predecessor is not None:
            self.predecessor.stop(STOP_TIMEOUT_S)
            self.predecessor = None
