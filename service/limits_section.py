"""The sections `limits`, `limit_service` and `model_limits` of a deployment file, as what they mean, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from service.deployment import Endpoint
from service.limits import Limits, LimitService, ModelLimit, RateLimit

LISTS = ("by", "models", "subjects", "tenants", "certificates", "actions")


def build_limits(data: Mapping[str, Any]) -> Limits | None:
    """The limits of a file that the schema allows, if any; DeploymentError, with the path, for what cannot be."""
    service = data.get("limit_service")
    limits = Limits(
        rates=tuple(map(_build_rate, data.get("limits", ()))),
        service=None if service is None else _build_service(service),
        models={model: ModelLimit(**declared) for model, declared in data.get("model_limits", {}).items()},
    )
    return None if limits == Limits() else limits


def describe_limits(limits: Limits) -> dict[str, Any]:
    """The sections for limits, those that are not empty: every field, with its default too."""
    sections: dict[str, Any] = {}
    if limits.rates:
        sections["limits"] = [_describe(rate) for rate in limits.rates]
    if limits.service is not None:
        endpoints = [str(endpoint) for endpoint in limits.service.endpoints]
        sections["limit_service"] = {**_describe(limits.service), "endpoints": endpoints}
    if limits.models:
        sections["model_limits"] = {model: _describe(limit) for model, limit in limits.models.items()}
    return sections


def _build_rate(declared: Mapping[str, Any]) -> RateLimit:
    lists = {field: tuple(declared[field]) for field in LISTS if field in declared}
    return RateLimit(**{"burst": declared["requests"], **declared, **lists})


def _build_service(declared: Mapping[str, Any]) -> LimitService:
    endpoints = [
        Endpoint.parse(text, ("limit_service", "endpoints", index)) for index, text in enumerate(declared["endpoints"])
    ]
    return LimitService(**{**declared, "endpoints": tuple(endpoints)})


def _describe(part: RateLimit | LimitService | ModelLimit) -> dict[str, Any]:
    """Fields as a file has them: lists that are empty, which match everything, and what sets no bound are left out."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(part)
        if (value := getattr(part, field.name)) not in ((), None)
    }
