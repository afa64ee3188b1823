"""What the gateway's templates need to know of a deployment's limits."""

import base64
from collections.abc import Mapping
from typing import Any

from kernels.retry_info import encode_status
from service.access_policy import AccessPolicy
from service.deployment import Deployment
from service.limit_expressions import MODEL_KEY, ROUTE_SPACE, write_name_if_counted, write_value
from service.limits import PERIODS_S, REFUSE, Limits, RateLimit

RESOURCE_EXHAUSTED = 8
LIMITS_CLUSTER = "limits"
# Of the descriptors that rates are known by: the key of the rate's name.
NAME_KEY = "limit"
DOMAIN = "sluice"
# After a refusal because too many calls are under way: nobody knows when one ends.
BUSY_RETRY_NS = 100_000_000


def describe_filters(deployment: Deployment) -> dict[str, Any] | None:
    """Values for the filters of the gateway's listener; None where there are no limits."""
    limits = deployment.limits
    if limits is None:
        return None
    return {
        "route_space": ROUTE_SPACE,
        "model_key": MODEL_KEY,
        "domain": DOMAIN,
        "cluster": LIMITS_CLUSTER,
        "local": [_describe_local(rate, deployment.access) for rate in limits.local],
        "shared": [_list_actions(rate, deployment.access) for rate in limits.shared],
        "service": _describe_service(limits),
        "sizes": {model: limit.max_message_bytes for model, limit in limits.models.items() if limit.max_message_bytes},
        "busy": _describe_busy() if any(limit.max_calls for limit in limits.models.values()) else None,
    }


def list_max_calls(deployment: Deployment) -> dict[str, int]:
    """How many calls at a time a version gets, by the names of those models that say so."""
    models = deployment.limits.models if deployment.limits else {}
    return {model: limit.max_calls for model, limit in models.items() if limit.max_calls}


def write_refusal(text: str, retry_ns: int) -> dict[str, str]:
    """The headers that tell a caller why, and when to try again; the base64 without padding, as gRPC has it."""
    details = base64.b64encode(encode_status(RESOURCE_EXHAUSTED, text.encode(), retry_ns))
    return {"grpc-message": text, "grpc-status-details-bin": details.decode().rstrip("=")}


def _describe_local(rate: RateLimit, access: AccessPolicy | None) -> dict[str, Any]:
    return {
        "rate": rate,
        "period": f"{PERIODS_S[rate.per]}s",
        "actions": _list_actions(rate, access),
        "entries": [{"key": NAME_KEY, "value": rate.name}, *({"key": key} for key in rate.by)],
        "headers": write_refusal(rate.refusal, rate.retry_ns),
    }


def _list_actions(rate: RateLimit, access: AccessPolicy | None) -> list[Mapping[str, Any]]:
    """By which Envoy describes a call to a rate: its name, and a value for each thing that it counts by."""
    if rate.matches:
        name = _evaluate(NAME_KEY, write_name_if_counted(rate, access))
    else:
        name = {"generic_key": {"descriptor_key": NAME_KEY, "descriptor_value": rate.name}}
    return [name, *(_read_model() if key == "model" else _evaluate(key, write_value(key, access)) for key in rate.by)]


def _evaluate(key: str, expression: str) -> Mapping[str, Any]:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
        "descriptor_key": key,
        "text": expression,
    }
    return {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": config}}


def _read_model() -> Mapping[str, Any]:
    """The model that the route is for; of a call on another route Envoy makes no descriptor."""
    place = {"key": ROUTE_SPACE, "path": [{"key": MODEL_KEY}]}
    return {"metadata": {"descriptor_key": "model", "source": "ROUTE_ENTRY", "metadata_key": place}}


def _describe_service(limits: Limits) -> dict[str, Any] | None:
    service = limits.service
    if service is None:
        return None
    return {
        "timeout": f"{service.timeout_ms / 1000:g}s",
        "refuses": service.on_failure == REFUSE,
        "identity": service.identity,
    }


def _describe_busy() -> dict[str, str]:
    text = "model: expected fewer calls under way at a time; try again after the delay in the details"
    return write_refusal(text, BUSY_RETRY_NS)
