"""What the gateway's templates are told of how calls find their version and server, besides the weights."""

from collections.abc import Iterable, Iterator

from service.deployment import Deployment, Endpoint, cluster_name, shadow_cluster_name, shadow_key
from service.gateway_access import CLAIMS_KEY, EXTRACTED, TOKENS
from service.localities import rank_localities
from service.model_routing import CallKey, Routing

# Envoy reads these out of all entries of the map, whatever their key: it cannot look one up.
ID_FIELDS = ("parameters.int64_param", "parameters.string_param")


def list_localities(deployment: Deployment, servers: Iterable[Endpoint]) -> list[dict[str, object]]:
    """Servers by locality, each with its priority for this gateway."""
    places = {server: deployment.locality_of(server) for server in servers}
    return [
        {
            "region": locality.region,
            "zone": locality.zone,
            "priority": priority,
            "endpoints": [server for server, place in places.items() if place == locality],
        }
        for locality, priority in rank_localities(deployment.locality, places.values()).items()
    ]


def has_failover(deployment: Deployment) -> bool:
    """Whether any servers are less preferred than others."""
    places = map(deployment.locality_of, deployment.endpoints)
    return any(rank_localities(deployment.locality, places).values())


def list_shadow_clusters(deployment: Deployment) -> Iterator[dict[str, object]]:
    """Clusters of those that get copies: their own, so that their statistics and limits are."""
    for model in deployment.models:
        if shadow := deployment.routing_of(model).shadow:
            yield {
                "name": shadow_cluster_name(model),
                "version": shadow.version,
                "health_name": f"{model}/{shadow.version}",
                "endpoints": deployment.servers(model, shadow.version),
                "is_shadow": True,
            }


def describe_shadow(model: str, routing: Routing) -> dict[str, object] | None:
    """Where copies of a model's calls go, how many, and the key that says so at the moment."""
    if routing.shadow is None:
        return None
    return {"cluster": shadow_cluster_name(model), "percent": routing.shadow.percent, "key": shadow_key(model)}


def describe_key(key: CallKey | None) -> dict[str, str] | None:
    """Which header, or which object of the filter state, Envoy hashes."""
    if key is None:
        return None
    return {"header": key.header, "object": "" if key.header else _name_object(key)}


def list_objects(deployment: Deployment) -> list[dict[str, str]]:
    """Objects of the filter state that are made of what headers do not say, each with its text's format."""
    texts = {_name_object(key): _format_object(key) for key in _list_keys(deployment) if not key.header}
    return [{"name": name, "format": text} for name, text in sorted(texts.items())]


def list_id_fields(deployment: Deployment) -> tuple[str, ...]:
    """Fields of messages that are looked at for the id of a sequence."""
    return ID_FIELDS if any(key.message for key in _list_keys(deployment)) else ()


def _list_keys(deployment: Deployment) -> set[CallKey]:
    return {key for model in deployment.models if (key := deployment.routing_of(model).key)}


def _name_object(key: CallKey) -> str:
    return f"sluice.claim.{key.claim}" if key.claim else f"sluice.{key.message}"


def _format_object(key: CallKey) -> str:
    if key.claim:
        return f"%DYNAMIC_METADATA({TOKENS}:{CLAIMS_KEY}:{key.claim})%"
    return "".join(f"%DYNAMIC_METADATA({EXTRACTED}:{field})%" for field in ID_FIELDS)


def list_clusters(deployment: Deployment) -> set[str]:
    """Names of the clusters of all versions, and of those that get copies."""
    versions = {cluster_name(model, number) for model, versions in deployment.models.items() for number in versions}
    return versions | {str(cluster["name"]) for cluster in list_shadow_clusters(deployment)}
