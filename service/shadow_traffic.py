"""Reads and sets how much of a model's traffic is copied to its shadow, in a running gateway, and what became of it."""

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from service.deployment import Deployment, DeploymentError, shadow_cluster_name, shadow_key
from service.model_routing import Shadow
from service.running_gateway import RunningGateway
from service.traffic import Admin

WHOLE_PERCENT = 100
COUNTS = {
    "calls": "upstream_rq_total",
    "answered": "upstream_rq_completed",
    "dropped": "upstream_rq_pending_overflow",
    "broken_off": "upstream_rq_rx_reset",
    "timed_out": "upstream_rq_max_duration_reached",
    "healthy": "membership_healthy",
    "servers": "membership_total",
}


@dataclass(frozen=True)
class ShadowState:
    """A model's shadow at the moment.

    Attributes
    ----------
    percent, declared_percent
        How many of the calls are copied, and how many as declared.
    calls, answered
        Copies that were sent since the gateway's start, and those of them that got an answer, be it an error.
    dropped
        Copies that were not made since too many were under way.
    broken_off, timed_out
        Those that ended otherwise.
    """

    version: int
    percent: int
    declared_percent: int
    calls: int = 0
    answered: int = 0
    dropped: int = 0
    broken_off: int = 0
    timed_out: int = 0
    healthy: int = 0
    servers: int = 0


class ShadowTraffic:
    """The shadows of a deployment as its gateway applies them.

    Its methods raise DeploymentError for a model that has none, and AdminError.
    """

    def __init__(self, deployment: Deployment, admin: Admin) -> None:
        self._deployment = deployment
        self._admin = admin

    def read(self, model: str) -> ShadowState:
        """What is in force, and what the gateway has counted."""
        declared = self._find(model)
        prefix = f"cluster.{shadow_cluster_name(model)}."
        counts = RunningGateway(self._admin).read_numbers(prefix + name for name in COUNTS.values())
        return ShadowState(
            declared.version,
            self._read_percent(model, declared.percent),
            declared.percent,
            **{field: counts.get(prefix + name, 0) for field, name in COUNTS.items()},
        )

    def set_percent(self, model: str, percent: int | None) -> None:
        """Copy so many percent of the calls from now on, until Envoy ends; None: as many as declared."""
        self._find(model)
        if percent is not None and not 0 <= percent <= WHOLE_PERCENT:
            raise DeploymentError(f"shadow: expected a whole number of percent from 0 to 100, given {percent}")
        value = "" if percent is None else str(percent)
        self._admin.request("POST", f"/runtime_modify?{urlencode({shadow_key(model): value})}")

    def _find(self, model: str) -> Shadow:
        self._deployment.versions(model)
        shadow = self._deployment.routing_of(model).shadow
        if shadow is None:
            raise DeploymentError(f"model {model!r}: no shadow is declared for it; it is set up in the deployment file")
        return shadow

    def _read_percent(self, model: str, declared: int) -> int:
        entries = json.loads(self._admin.request("GET", "/runtime?format=json"))["entries"]
        text = entries.get(shadow_key(model), {}).get("final_value", "")
        return int(text) if text.isdecimal() else declared
