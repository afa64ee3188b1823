"""Runs service and gateway together: starts them in order, restarts what dies, drains, leaves nothing behind."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType

from certs import ensure_certificates
from service.admin import AdminError
from service.child import Child
from service.daemons import POLL_S, STOP_TIMEOUT_S, GatewayDaemon, ServiceDaemon
from service.deployment import Deployment
from service.envoy_check import GatewayError
from service.gateway_install import install
from service.instance import check_ports, lock_instance
from service.plan import Plan, derive_deployment

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
READY_POLL_S = 0.2
SIGNAL_POLL_S = 0.1
# What dies at once again and again is started ever more slowly; a minute of life is forgiven.
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
BACKOFF_FORGIVEN_S = 60.0


class SupervisorError(Exception):
    """The deployment cannot be started or kept up; the text says why."""


class Supervisor:
    """A whole deployment on this machine, from its start to its end.

    Use it as a context manager, or call start() and stop(). All children belong to one thread of its own: the kernel
    ends them with it, so that none outlives this process, however that ends.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._deployment: Deployment | None = None
        self._kept: list[_Kept] = []
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._started, self._ended = threading.Event(), threading.Event()
        self._error: Exception | None = None
        # Written from signal handlers, in which no lock may be taken.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop_requests = 0
        self._is_replacement_wanted = False

    def __enter__(self) -> "Supervisor":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def deployment(self) -> Deployment:
        """What the gateway was rendered from."""
        if self._deployment is None:
            raise SupervisorError("not started")
        return self._deployment

    def pid(self, name: str) -> int | None:
        """Process number of the child "service" or "gateway", or None while there is none."""
        return next((kept.child.pid for kept in self._kept if kept.daemon.name == name and kept.child), None)

    def start(self) -> None:
        """Start everything and return when all of it is ready.

        Raises
        ------
        SupervisorError
            Something did not start; nothing is left running.
        """
        self._thread.start()
        _wait_awake(self._started)
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Return when everything has ended; SupervisorError when that was for a failure."""
        _wait_awake(self._ended)
        self._thread.join()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
        if self._error is not None:
            raise SupervisorError(str(self._error)) from self._error

    def stop(self) -> None:
        """Drain and end everything, the gateway first; returns when it is done, at once if nothing was started."""
        self.request_stop()
        if self._thread.ident is not None:
            self.wait()

    def request_stop(self) -> None:
        """Ask for the end and return at once; asked again, nothing is waited for. May be called by a signal handler."""
        self._stop_requests += 1
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def request_replacement(self) -> None:
        """Ask for another Envoy in place of the one that runs; returns at once, and a signal handler may call it."""
        self._is_replacement_wanted = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            with lock_instance(self.plan.state_folder / "run" / "lock"):
                try:
                    self._start_all()
                    self._started.set()
                    self._keep_all()
                finally:
                    self._end_all()
        except Exception as error:  # whatever it is, start() or wait() raises it in the caller's thread
            self._error = error
        finally:
            self._started.set()
            self._ended.set()

    def _start_all(self) -> None:
        plan = self.plan
        (plan.state_folder / "logs").mkdir(parents=True, exist_ok=True)
        self._check_ports()
        if plan.declared is None:
            ensure_certificates(plan.certificates)
        self._deployment = derive_deployment(plan)
        gateway = GatewayDaemon(plan)
        install(plan.declared or self._deployment, plan.state_folder, gateway.executable, self._deployment)
        for daemon in (gateway,) if plan.declared else (ServiceDaemon(plan), gateway):
            kept = _Kept(daemon)
            self._kept.append(kept)
            kept.start()
            self._await_ready(kept)
            log.info("started", extra={"child": daemon.name, "pid": kept.child.pid})

    def _check_ports(self) -> None:
        plan, declared = self.plan, self.plan.declared
        at = declared or plan
        ports = {"gateway": at.gateway, "operator listener": at.operator}
        check_ports(ports if declared else {**ports, "service": plan.service})

    def _await_ready(self, kept: "_Kept") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not kept.probe():
            if self._stop_requests:
                raise SupervisorError("stopped while starting")
            if (code := kept.child.exit_code()) is not None:
                raise SupervisorError(f"{kept.daemon.name} ended with {code}:\n{kept.child.read_log_tail()}")
            if time.monotonic() > deadline:
                tail = kept.child.read_log_tail()
                raise SupervisorError(f"{kept.daemon.name} is not ready after {START_TIMEOUT_S:.0f} s:\n{tail}")
            self._pause(POLL_S)

    def _keep_all(self) -> None:
        while not self._stop_requests:
            if self._is_replacement_wanted:
                self._is_replacement_wanted = False
                for kept in self._kept:
                    kept.replace()
            self._pause(min(kept.tend() for kept in self._kept))

    def _pause(self, timeout_s: float) -> bool:
        """Wait until a child ends, a stop is asked for, or the time is over; tells whether to hurry."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        for child in (child for kept in self._kept for child in (kept.child, kept.predecessor)):
            if child is not None and child.exit_code() is None:
                poller.register(child.descriptor, select.POLLIN)
        # One millisecond more: a wait that ends a moment early would turn in circles.
        if self._wake in dict(poller.poll(int(timeout_s * 1000) + 1)):
            os.eventfd_read(self._wake)
        return self._stop_requests > 1

    def _end_all(self) -> None:
        """The gateway first, so that nobody calls a service that is going."""
        for kept in reversed(self._kept):
            kept.end(self._pause)


def _wait_awake(event: threading.Event) -> None:
    """Wait for an event and run signal handlers meanwhile: a signal that another thread takes does not end a wait."""
    while not event.wait(SIGNAL_POLL_S):
        pass


class _Kept:
    """A daemon that is kept running: its child of the moment, the one before, and when the next one may start."""

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
        self.child = self.daemon.start()
        self._is_ready = False
        self._started_at = time.monotonic()

    def replace(self) -> None:
        """Start a successor, if the daemon can have one, the child runs well, and none is taking over already."""
        if not isinstance(self.daemon, GatewayDaemon) or not self._is_ready or self.predecessor is not None:
            return
        try:
            successor = self.daemon.start_successor()
        except (AdminError, GatewayError, OSError) as error:
            log.error("not replaced", extra={"child": self.daemon.name, "reason": str(error)})
            return
        self.predecessor, self.child = self.child, successor
        self._is_ready = False
        self._started_at = time.monotonic()

    def probe(self) -> bool:
        if not self._is_ready and self.daemon.is_ready():
            self._is_ready = True
            if self.predecessor is not None:
                self.daemon.settle_successor()
        return self._is_ready

    def tend(self) -> float:
        """Bury a child that has died and start the next when it is time; returns seconds until there is more to do."""
        if self.predecessor is not None:
            self._tend_predecessor()
        if self.child is not None and self.child.exit_code() is not None:
            self._bury()
        if self.child is not None:
            return BACKOFF_FORGIVEN_S if self._is_ready else self._probe_again()
        left = self._start_at - time.monotonic()
        if left > 0:
            return left
        self.start()
        return READY_POLL_S

    def _tend_predecessor(self) -> None:
        """Bury the one that has handed over; keep it when its successor has died before that."""
        if self.predecessor.exit_code() is not None:
            log.info("replaced", extra={"child": self.daemon.name, "pid": self.child.pid, "old": self.predecessor.pid})
            self.predecessor.close()
            self.predecessor = None
        elif self.child.exit_code() is not None and not self._is_ready:
            log.error("not replaced", extra={"child": self.daemon.name, "reason": self.child.read_log_tail()})
            self.child.close()
            self.daemon.give_up_successor()
            self.child, self.predecessor, self._is_ready = self.predecessor, None, True

    def _probe_again(self) -> float:
        if self.probe():
            log.info("restarted", extra={"child": self.daemon.name, "pid": self.child.pid})
            return BACKOFF_FORGIVEN_S
        if time.monotonic() - self._started_at > START_TIMEOUT_S:
            log.error("not ready", extra={"child": self.daemon.name, "log": self.child.read_log_tail()})
            self.child.kill()
        return READY_POLL_S

    def _bury(self) -> None:
        if self.predecessor is not None:
            # It holds the ports until it is gone.
            self.predecessor.stop(STOP_TIMEOUT_S)
            self.predecessor = None
        now, tail = time.monotonic(), self.child.read_log_tail()
        code = self.child.close()
        self.child = None
        if now - self._started_at > BACKOFF_FORGIVEN_S:
            self._backoff_s = BACKOFF_FIRST_S
        log.error("died", extra={"child": self.daemon.name, "code": code, "restart_in_s": self._backoff_s, "log": tail})
        self._start_at = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_LAST_S)

    def end(self, is_forced: Callable[[float], bool]) -> None:
        if self.predecessor is not None:
            self.predecessor.stop(STOP_TIMEOUT_S)
            self.predecessor = None
        if self.child is None:
            return
        if self.child.exit_code() is None:
            self.daemon.drain(self.child, is_forced)
        code = self.child.stop(0 if is_forced(0) else STOP_TIMEOUT_S)
        log.info("ended", extra={"child": self.daemon.name, "code": code})
        self.child = None
