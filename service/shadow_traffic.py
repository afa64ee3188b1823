"""Reads and sets how much of a model's traffic is copied to its shadow, in a running gateway, and what became of it."""

import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from service.deployment import Deployment, DeploymentError, shadow_cluster_name, shadow_key
from service.model_routing import Shadow
from service.running_gateway import RunningGateway
from service.traffic import Admin, Traffic

WHOLE_PERCENT = 100
AS_DECLARED = "declared"
SENT, ANSWERED = "upstream_rq_total", "upstream_rq_2xx"
# Envoy answers what it does not send, or gets no answer to, by itself.
REFUSED = ("upstream_rq_4xx", "upstream_rq_5xx")
DROPPED = ("upstream_rq_active_overflow", "upstream_rq_pending_overflow")
HEALTHY, SERVERS = "membership_healthy", "membership_total"
COUNTS = (SENT, ANSWERED, *REFUSED, *DROPPED, HEALTHY, SERVERS)


@dataclass(frozen=True)
class ShadowState:
    """A model's shadow at the moment.

    Attributes
    ----------
    percent, declared_percent
        How many of the calls are copied, and how many as declared.
    sent, answered
        Copies that were sent since the gateway's start, and those of them that got an answer, be it a gRPC error.
    dropped
        Those that were not sent, since as many as may be were under way.
    failed
        Those that got no answer otherwise.
    """

    version: int
    percent: int
    declared_percent: int
    sent: int
    answered: int
    dropped: int
    failed: int
    healthy: int
    servers: int


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
        found = RunningGateway(self._admin).read_numbers(prefix + name for name in COUNTS)
        counts = {name: found.get(prefix + name, 0) for name in COUNTS}
        dropped = sum(counts[name] for name in DROPPED)
        return ShadowState(
            version=declared.version,
            percent=self._read_percent(model, declared.percent),
            declared_percent=declared.percent,
            sent=counts[SENT],
            answered=counts[ANSWERED],
            dropped=dropped,
            failed=sum(counts[name] for name in REFUSED) - dropped,
            healthy=counts[HEALTHY],
            servers=counts[SERVERS],
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


def read_shadow(traffic: Traffic, model: str) -> ShadowState | None:
    """A model's shadow, if it has one; AdminError."""
    if traffic.deployment.routing_of(model).shadow is None:
        return None
    return ShadowTraffic(traffic.deployment, traffic.admin).read(model)


def parse_share(text: str, shadow: ShadowState) -> int | None:
    """Read `version=percent` for the declared version, or `declared`, which is None; DeploymentError otherwise."""
    if text == AS_DECLARED:
        return None
    match = re.fullmatch(r"(\d{1,18})=(\d{1,3})", text, re.ASCII)
    if match is None or int(match[2]) > WHOLE_PERCENT:
        raise DeploymentError(f"shadow: expected VERSION=PERCENT in whole numbers up to 100, given {text!r}")
    if int(match[1]) != shadow.version:
        raise DeploymentError(
            f"shadow: expected version {shadow.version}, given {match[1]}; the deployment file says which it is"
        )
    return int(match[2])
