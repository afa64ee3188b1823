"""A control plane from its start to its end: one process that serves the deployment that was put in force last."""

import asyncio
import dataclasses
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from service.control_client import ControlError
from service.control_server import start_server
from service.control_socket import listen
from service.deployment import Deployment, DeploymentError
from service.deployment_file import format_deployment, read_deployment
from service.envoy_check import GatewayError
from service.fleet import Fleet, check_deployment
from service.follower import CLIENT, GATEWAY, Place
from service.grpcio_server import make_loop
from service.instance import InstanceError, lock_instance
from service.xds_types import XdsError

log = logging.getLogger(__name__)

FILE = "control/deployment.yaml"
LOCK = "run/control.lock"
STOP_GRACE_S = 0.5


def serve(
    declared: Deployment, state_folder: Path, envoy: Path, drain_timeout_s: float, tell: Callable[[Deployment], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    declared
        What is served where nothing was yet: later starts go on with what was put in force last, since nobody is there
        yet who could try something else before all others get it.
    tell
        Told what is in force once it is served.

    Raises
    ------
    ControlError
        It cannot be served here, or Envoy refuses it.
    """
    try:
        with lock_instance(state_folder / LOCK):
            fleet = Fleet(_choose(declared, state_folder, envoy), state_folder / FILE, envoy, 30.0, drain_timeout_s)
            loop = make_loop()
            asyncio.set_event_loop(loop)
            loop.run_until_complete(_serve(fleet, state_folder, tell))
    except InstanceError as error:
        raise ControlError(str(error)) from None


def _choose(declared: Deployment, state_folder: Path, envoy: Path) -> Deployment:
    try:
        kept = read_deployment(state_folder / FILE)
    except DeploymentError:
        kept = None
    if kept is None:
        try:
            check_deployment(declared, envoy)
        except GatewayError as error:
            raise ControlError(str(error)) from None
        return declared
    if format_deployment(kept) != format_deployment(declared):
        log.warning("the file is not what is in force; sluice control apply puts it in force")
    # What concerns this process alone is as declared.
    control = dataclasses.replace(kept.control or declared.control, listen=declared.control.listen)
    return dataclasses.replace(kept, certificates=declared.certificates, control=control)


async def _serve(fleet: Fleet, state_folder: Path, tell: Callable[[Deployment], None]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        for kind in (GATEWAY, CLIENT):
            await fleet.find_resources(Place(kind))
    except XdsError as error:
        raise ControlError(str(error)) from None
    server = await start_server(fleet)
    local = await listen(fleet, state_folder)
    fleet.keep()
    tell(fleet.deployment)
    await stopped.wait()
    local.close()
    await server.stop(STOP_GRACE_S)
