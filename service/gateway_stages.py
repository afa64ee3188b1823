"""In which order a running gateway goes from one deployment to another, so that no call is led nowhere.

Versions that come are there before a route leads to them, and those that go stay until none does. In between, routes
lead to both sets of versions: the split stays the old one until it becomes the new one in a single step.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from service.access_policy import AccessPolicy
from service.deployment import Deployment, Version
from service.gateway import RUNTIME_FILE, render, render_runtime
from service.limits import Limits
from service.model_routing import Routing
from service.rendered_routing import list_clusters

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Stage:
    """Files that are put in place together, in their order; the gateway has taken all of them before the next stage.

    Attributes
    ----------
    name
        What happens, in a few words.
    idle_clusters
        Those that must have no call any more before this stage begins.
    """

    name: str
    files: Files
    idle_clusters: tuple[str, ...] = ()


def plan_stages(old: Deployment, new: Deployment) -> list[Stage]:
    """The way from one deployment to another, stage by stage."""
    both = join_deployments(old, new)
    wide, after = render(both), render(new)
    gone = tuple(sorted(list_clusters(old) - list_clusters(new)))
    return [
        Stage("servers", _pick(render(join_servers(old, new)), "descriptors", "secrets", "endpoints", "clusters")),
        Stage("routes to old and new", _pick(wide, "runtime", "routes")),
        Stage("weights", {RUNTIME_FILE: render_runtime(_weigh_new(old, both, new))}),
        Stage("routes", _pick(after, "routes", "listeners", "bootstrap")),
        Stage("end of the old", _pick(after, "endpoints", "clusters", "runtime"), gone),
    ]


def join_deployments(old: Deployment, new: Deployment) -> Deployment:
    """The new deployment with the old one's models and versions besides, whose calls go by the old one's rules.

    What is new in an old model has weight 0.
    """
    weights = {model: _join_weights(old.models.get(model, {}), new.models.get(model, {})) for model in _join(old, new)}
    return _join_servers(old, new, weights, {**new.routing, **_list_routing(old)})


def join_servers(old: Deployment, new: Deployment) -> Deployment:
    """The servers of both as the new deployment has them: who gets copies in the old one has them still."""
    weights = {model: _join_weights(new.models.get(model, {}), old.models.get(model, {})) for model in _join(old, new)}
    routing = {**old.routing, **_list_routing(new)}
    shadows = {model: one.shadow or old.routing_of(model).shadow for model, one in routing.items()}
    kept = {model: dataclasses.replace(one, shadow=shadows[model]) for model, one in routing.items()}
    return _join_servers(old, new, weights, kept)


def _join(old: Deployment, new: Deployment) -> list[str]:
    return [*{**old.models, **new.models}]


def _list_routing(deployment: Deployment) -> dict[str, Routing]:
    return {model: deployment.routing_of(model) for model in deployment.models}


def _join_weights(first: Mapping[int, Version], second: Mapping[int, Version]) -> dict[int, int]:
    """The first one's weights, or if it has none the second's, and 0 for what only the second has."""
    others = {number: 0 if first else version.weight for number, version in second.items()}
    return {**others, **{number: version.weight for number, version in first.items()}}


def _join_servers(
    old: Deployment, new: Deployment, weights: Mapping[str, Mapping[int, int]], routing: Mapping[str, Routing]
) -> Deployment:
    """Of each version the new servers if it has any; each model's regions have been heeded then.

    What a control plane makes of models is left out: of both together it may be what neither alone could have.
    """
    models = {
        model: {
            number: Version(weight, (new if number in new.models.get(model, {}) else old).servers(model, number))
            for number, weight in numbers.items()
        }
        for model, numbers in weights.items()
    }
    return dataclasses.replace(
        new,
        models=models,
        routing={model: dataclasses.replace(one, regions=()) for model, one in routing.items()},
        localities={**old.localities, **new.localities},
        access=_join_access(old.access, new.access),
        limits=_join_limits(old.limits, new.limits),
        control=None,
    )


def _join_access(old: AccessPolicy | None, new: AccessPolicy | None) -> AccessPolicy | None:
    """The new policy, with the issuers of the old one by whose claims its routes and listeners still go."""
    if old is None or not old.issuers:
        return new
    policy = new or AccessPolicy(roles={}, grants=())
    known = {issuer.issuer for issuer in policy.issuers.values()}
    left = {name: issuer for name, issuer in old.issuers.items() if issuer.issuer not in known}
    return dataclasses.replace(policy, issuers={**left, **policy.issuers})


def _join_limits(old: Limits | None, new: Limits | None) -> Limits | None:
    """The new limits, with the old service for as long as the old listeners ask it."""
    if old is None or old.service is None:
        return new
    return dataclasses.replace(new or Limits(), service=new.service if new and new.service else old.service)


def _weigh_new(old: Deployment, both: Deployment, new: Deployment) -> dict[str, dict[int, int]]:
    """The new weights, 0 for versions that go, and those that models had which go."""
    return {
        model: dict.fromkeys(versions, 0) | new.weights(model) if model in new.models else old.weights(model)
        for model, versions in both.models.items()
    }


def _pick(files: Files, *kinds: str) -> Files:
    """The files of some kinds, in their own order: the names that they, or their folders, have."""
    return {path: content for path, content in files.items() if path.split("/")[1].partition(".")[0] in kinds}
