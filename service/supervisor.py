"""Runs service and gateway together: starts them in order, restarts what dies, drains, leaves nothing behind."""

import logging
import os
import select
import threading
import time
from pathlib import Path
from types import TracebackType

from certs import ensure_certificates
from service.daemons import POLL_S, GatewayDaemon, ServiceDaemon
from service.deployment import Deployment
from service.envoy_check import SECRETS
from service.expiry import ExpiryWatch
from service.fleet_member import install_member
from service.gateway_install import install
from service.instance import check_ports, lock_instance
from service.kept_daemon import START_TIMEOUT_S, KeptDaemon
from service.plan import Plan, derive_deployment

log = logging.getLogger(__name__)

SIGNAL_POLL_S = 0.1


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
        self._kept: list[KeptDaemon] = []
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
        gateway = GatewayDaemon(plan)
        self._install(gateway.executable)
        for daemon in (gateway,) if plan.declared or plan.member else (ServiceDaemon(plan), gateway):
            kept = KeptDaemon(daemon)
            self._kept.append(kept)
            kept.start()
            self._await_ready(kept)
            log.info("started", extra={"child": daemon.name, "pid": kept.child.pid})

    def _install(self, envoy: Path) -> None:
        plan = self.plan
        if plan.member is not None:
            install_member(plan.member, plan.state_folder, envoy)
            return
        if plan.declared is None:
            ensure_certificates(plan.certificates)
        self._deployment = derive_deployment(plan)
        install(plan.declared or self._deployment, plan.state_folder, envoy, self._deployment)

    def _check_ports(self) -> None:
        plan, declared = self.plan, self.plan.declared
        if plan.member is not None:
            # The others are not known yet.
            check_ports({"gateway": plan.member.gateway} if plan.member.gateway else {})
            return
        at = declared or plan
        ports = {"gateway": at.gateway, "operator listener": at.operator}
        check_ports(ports if declared else {**ports, "service": plan.service})

    def _await_ready(self, kept: KeptDaemon) -> None:
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
        expiry = ExpiryWatch(self._list_certificates())
        while not self._stop_requests:
            expiry.check()
            if self._is_replacement_wanted:
                self._is_replacement_wanted = False
                for kept in self._kept:
                    kept.replace()
            self._pause(min(kept.tend() for kept in self._kept))

    def _list_certificates(self) -> list[Path]:
        """Files of what the gateway shows and trusts."""
        chosen = self.plan.declared or self.plan.member
        files = [(chosen or self.plan).certificates / f"{name}.pem" for name in SECRETS]
        return [*files, chosen.client_crl] if chosen and chosen.client_crl else files

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
