"""In which order a running gateway goes from one deployment to another, so that no call is led nowhere.

Versions that come are there before a route leads to them, and those that go stay until none does. In between, routes
lead to both sets of versions: the split stays the old one until it becomes the new one in a single step.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from service.deployment import Deployment, Version, cluster_name
from service.gateway import RUNTIME_FILE, render, render_runtime
from service.limits import Limits

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
    gone = tuple(sorted(_list_clusters(old) - _list_clusters(new)))
    return [
        Stage("servers", _pick(wide, "descriptors", "secrets", "endpoints", "clusters")),
        Stage("routes to old and new", _pick(wide, "runtime", "routes")),
        Stage("weights", {RUNTIME_FILE: render_runtime(_weigh_new(old, both, new))}),
        Stage("routes", _pick(after, "routes", "listeners", "bootstrap")),
        Stage("end of the old", _pick(after, "endpoints", "clusters", "runtime"), gone),
    ]


def join_deployments(old: Deployment, new: Deployment) -> Deployment:
    """The new deployment with the old one's models and versions besides; what is new in an old model has weight 0."""
    models = {}
    for model in {**old.models, **new.models}:
        ours, theirs = old.models.get(model, {}), new.models.get(model, {})
        models[model] = {
            number: Version(
                ours[number].weight if number in ours else 0 if ours else theirs[number].weight,
                (theirs if number in theirs else ours)[number].endpoints,
            )
            for number in {**ours, **theirs}
        }
    return dataclasses.replace(new, models=models, limits=_join_limits(old.limits, new.limits))


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


def _list_clusters(deployment: Deployment) -> set[str]:
    return {cluster_name(model, number) for model, versions in deployment.models.items() for number in versions}


def _pick(files: Files, *kinds: str) -> Files:
    """The files of some kinds, in their own order: the names that they, or their folders, have."""
    return {path: content for path, content in files.items() if path.split("/")[1].partition(".")[0] in kinds}
