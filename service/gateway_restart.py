"""Has the supervisor of a state folder put another Envoy in the place of the one that runs."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from service.admin import AdminError, AdminSocket
from service.envoy_check import GatewayError
from service.gateway import ADMIN_SOCKET
from service.gateway_apply import LOCK
from service.instance import find_owner, lock_instance
from service.running_gateway import RunningGateway

GENERATION, LIVE = "server.hot_restart_generation", "server.live"
POLL_S = 0.05


def restart_gateway(state_folder: Path, timeout_s: float) -> None:
    """Return when a new Envoy, of the executable that is there now, takes calls on the old one's sockets.

    Raises
    ------
    GatewayError
        None is supervised there, or the new one does not come up; its log says why, and the old one serves on.
    AdminError
        The running one does not say which it is.
    InstanceError
        A change of the gateway is under way, which would lose sight of it.
    """
    owner = find_owner(state_folder / "run" / "lock")
    if owner is None:
        raise GatewayError(f"{state_folder}: no gateway is running there")
    with lock_instance(state_folder / LOCK):
        _replace(owner, RunningGateway(AdminSocket(state_folder / ADMIN_SOCKET)), timeout_s)


def _replace(owner: int, gateway: RunningGateway, timeout_s: float) -> None:
    before = gateway.read_numbers((GENERATION,)).get(GENERATION, 0)
    overrides = gateway.read_overrides()
    os.kill(owner, signal.SIGUSR2)
    until = time.monotonic() + timeout_s
    while not _is_next(gateway, before, overrides):
        if time.monotonic() > until:
            raise GatewayError(f"no other Envoy has come up within {timeout_s:.0f} s; the gateway's log says why")
        time.sleep(POLL_S)


def _is_next(gateway: RunningGateway, before: int, overrides: Mapping[str, str]) -> bool:
    """Whether another one serves, by what operators have set."""
    try:
        numbers, kept = gateway.read_numbers((GENERATION, LIVE)), gateway.read_overrides()
    except AdminError:
        # Between the old one's admin and the new one's there is none.
        return False
    return numbers.get(GENERATION, 0) > before and numbers.get(LIVE) == 1 and overrides.items() <= kept.items()
