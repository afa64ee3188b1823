"""Puts a deployment in force: checked first, then stage by stage in a running gateway, each one seen to be taken."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.admin import AdminError, AdminSocket
from service.applied_deployment import read_applied, save_applied
from service.deployment import Deployment, DeploymentError, cluster_name, runtime_key
from service.envoy_check import FOLDER, GatewayError, check
from service.gateway import ADMIN_SOCKET, render
from service.gateway_install import install, put_in_place
from service.gateway_stages import Stage, plan_stages
from service.instance import lock_instance
from service.running_gateway import RunningGateway
from service.watch_limit import check_watches
from service.weight_layers import read_weight

log = logging.getLogger(__name__)

POLL_S = 0.02
LOCK = "run/gateway.lock"
# Longer than a call waits at most before it is sent again: three times the back-off in routes.yaml.
RETRY_S = 0.6


@dataclass(frozen=True)
class GatewayChange:
    """Changes the gateway of a state folder from one deployment to another.

    Attributes
    ----------
    state_folder
        Where its configuration is.
    envoy
        Envoy's executable, which checks what is new.
    drain_timeout_s
        How long calls to a version that goes may take to finish.
    tell
        Told the name of each stage as it begins.
    take_timeout_s
        How long Envoy may take to go by the files of a stage.
    """

    state_folder: Path
    envoy: Path
    drain_timeout_s: float = 30.0
    tell: Callable[[str], None] = lambda stage: None
    take_timeout_s: float = 30.0

    def apply(self, new: Deployment) -> bool:
        """Put a deployment in force, and return when the gateway goes by it; False when none is running that could.

        Raises
        ------
        GatewayError
            Envoy refuses it, or a version that is to get traffic has no healthy server. What was in force still is.
        AdminError
            The gateway went away meanwhile; it starts again with what was in force.
        InstanceError
            Another change, or a restart of the gateway, is under way.
        """
        gateway = RunningGateway(AdminSocket(self.state_folder / ADMIN_SOCKET))
        with lock_instance(self.state_folder / LOCK):
            if not gateway.is_up():
                install(new, self.state_folder, self.envoy)
                return False
            check(render(new), self.envoy)
            self._change(gateway, self._read_old(), new)
            save_applied(new, self.state_folder)
            return True

    def _read_old(self) -> Deployment:
        try:
            return read_applied(self.state_folder)
        except DeploymentError as error:
            raise GatewayError(f"what the running gateway was rendered from is not known: {error}") from None

    def _change(self, gateway: RunningGateway, old: Deployment, new: Deployment) -> None:
        check_overrides(gateway.read_overrides(), new)
        check_watches({**render(old), **render(new)})
        # Both before the first stage: what could not be taken back is not begun.
        stages, way_back = plan_stages(old, new), plan_stages(new, old)
        try:
            for index, stage in enumerate(stages):
                self._enter(gateway, stage)
                if index == 0:
                    check_servers(gateway, new, old)
        except BaseException as error:
            # Whatever ends it, Ctrl-C while calls finish too: the next change starts from what is noted as applied.
            self._take_back(gateway, old, way_back)
            if isinstance(error, GatewayError):
                raise GatewayError(f"{error}\nWhat was in force before is again.") from None
            raise
        self._remove_rest(new)

    def _enter(self, gateway: RunningGateway, stage: Stage) -> None:
        self.tell(stage.name)
        if stage.idle_clusters:
            self._await_idle(gateway, stage)
        put_in_place(stage.files, self.state_folder)
        await_taken(gateway, stage, self.take_timeout_s)

    def _await_idle(self, gateway: RunningGateway, stage: Stage) -> None:
        """Return when no call is under way, nor one that waits to be sent again, which no statistic counts."""
        now = quiet_since = time.monotonic()
        until, calls, begun_before = now + self.drain_timeout_s, 0, -1
        while now < until:
            calls, begun = gateway.count_calls(stage.idle_clusters)
            if calls or begun != begun_before:
                quiet_since, begun_before = now, begun
            elif now - quiet_since > RETRY_S:
                return
            time.sleep(POLL_S)
            now = time.monotonic()
        if calls:
            log.warning("calls are broken off", extra={"calls": calls, "clusters": list(stage.idle_clusters)})

    def _take_back(self, gateway: RunningGateway, old: Deployment, way_back: Sequence[Stage]) -> None:
        for stage in way_back:
            try:
                put_in_place(stage.files, self.state_folder)
                await_taken(gateway, stage, self.take_timeout_s)
            except (GatewayError, AdminError, OSError) as error:
                log.error("not taken back", extra={"stage": stage.name, "reason": str(error)})
        self._remove_rest(old)

    def _remove_rest(self, left: Deployment) -> None:
        kept = render(left)
        for path in (self.state_folder / FOLDER / "endpoints").glob("*.yaml"):
            if str(path.relative_to(self.state_folder)) not in kept:
                path.unlink()


def await_taken(gateway: RunningGateway, stage: Stage, timeout_s: float) -> None:
    """Return when the gateway goes by a stage's files and nothing warms up any more; GatewayError after a while."""
    until = time.monotonic() + timeout_s
    while (untaken := gateway.find_untaken(stage.files)) or gateway.is_warming():
        if time.monotonic() > until:
            what = ", ".join(untaken) or "a cluster or listener that is warming up"
            raise GatewayError(f"Envoy has not taken {what} within {timeout_s:.0f} s; its log says why")
        time.sleep(POLL_S)


def check_overrides(overrides: dict[str, str], new: Deployment) -> None:
    """Raise GatewayError when what an operator gave the admin would leave a model's traffic to no version."""
    for model, versions in new.models.items():
        texts = {number: overrides.get(runtime_key(model, number), "") for number in versions}
        if not any(read_weight(text, versions[number].weight) for number, text in texts.items()):
            raise GatewayError(
                f"model {model!r}: weights that the admin was given shadow the deployment's, and leave all of its "
                "versions without traffic; undo them first"
            )


def check_servers(gateway: RunningGateway, new: Deployment, old: Deployment) -> None:
    """Raise GatewayError for a version that is to get traffic, got none before, and has no healthy server."""
    names = {
        cluster_name(model, number): (model, number)
        for model, number in _list_weighed(new)
        if (model, number) not in set(_list_weighed(old))
    }
    healthy = gateway.count_healthy(names) if names else {}
    for cluster, (model, number) in names.items():
        if not healthy.get(cluster):
            raise GatewayError(f"model {model!r} version {number}: none of its servers is healthy")


def _list_weighed(deployment: Deployment) -> Iterator[tuple[str, int]]:
    for model, versions in deployment.models.items():
        for number, version in versions.items():
            if version.weight:
                yield model, number
