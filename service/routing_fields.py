"""Those fields of a deployment file that say more of a model's calls than weights, and where servers are."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.deployment import Endpoint
from service.deployment_error import DeploymentError
from service.localities import Locality
from service.model_routing import NO_ROUTING, CallKey, Routing, Shadow

Path = tuple[str | int, ...]


def read_address(server: str | Mapping[str, str], path: Path) -> Endpoint:
    """Where a server listens, as one of a version's `endpoints` says it."""
    return Endpoint.parse(server if isinstance(server, str) else server["address"], path)


def read_place(fields: Mapping[str, Any]) -> Locality:
    """The region and zone of a mapping that may have both."""
    return Locality(fields.get("region", ""), fields.get("zone", ""))


def describe_place(locality: Locality) -> dict[str, str]:
    """The fields for it; none where nothing is known."""
    return {key: text for key, text in (("region", locality.region), ("zone", locality.zone)) if text}


def describe_server(endpoint: Endpoint, locality: Locality) -> str | dict[str, str]:
    """One of a version's `endpoints`."""
    place = describe_place(locality)
    return {"address": str(endpoint), **place} if place else str(endpoint)


def build_localities(models: Mapping[str, Any]) -> dict[Endpoint, Locality]:
    """The places of all servers; DeploymentError when one is said to be at two."""
    localities: dict[Endpoint, Locality] = {}
    for path, server in _list_servers(models):
        if not isinstance(server, str):
            endpoint, locality = read_address(server, path), read_place(server)
            if localities.setdefault(endpoint, locality) != locality:
                before = ", ".join(describe_place(localities[endpoint]).values())
                raise DeploymentError(f"expected {endpoint} in one place, and it was in {before} before", path)
    return localities


def _list_servers(models: Mapping[str, Any]) -> Iterator[tuple[Path, str | Mapping[str, str]]]:
    for model, declared in models.items():
        for number, version in declared["versions"].items():
            for index, server in enumerate(version["endpoints"]):
                yield ("models", model, "versions", number, "endpoints", index), server


def build_routing(models: Mapping[str, Any]) -> dict[str, Routing]:
    """What is declared of models' calls, of those that declare anything."""
    built = {model: _build_model(model, declared) for model, declared in models.items()}
    return {model: routing for model, routing in built.items() if routing != NO_ROUTING}


def _build_model(model: str, declared: Mapping[str, Any]) -> Routing:
    shadow = Shadow(**declared["shadow"]) if "shadow" in declared else None
    # Asked here and not of every deployment: an operator may well try a shadow with a little traffic.
    if shadow and declared["versions"].get(str(shadow.version), {}).get("weight"):
        raise DeploymentError(
            f"model {model!r}: expected as shadow a version of weight 0, whose answers no caller gets unless it names "
            "the version",
            ("models", model, "shadow", "version"),
        )
    return Routing(
        sticky=CallKey(**declared["sticky"]) if "sticky" in declared else None,
        affinity=CallKey(**declared["affinity"]) if "affinity" in declared else None,
        shadow=shadow,
        regions=tuple(declared.get("regions", ())),
        idempotency=declared.get("idempotency", False),
        sequences=declared.get("sequences", False),
    )


def describe_routing(routing: Routing) -> dict[str, Any]:
    """A model's fields for it; those that are not declared are left out."""
    fields = {
        "sticky": _describe_key(routing.sticky),
        "affinity": _describe_key(routing.affinity),
        "shadow": dict(vars(routing.shadow)) if routing.shadow else None,
        "regions": list(routing.regions),
        "idempotency": routing.idempotency,
        "sequences": routing.sequences,
    }
    return {key: value for key, value in fields.items() if value}


def _describe_key(key: CallKey | None) -> dict[str, str]:
    return {field: text for field, text in vars(key).items() if text} if key else {}
