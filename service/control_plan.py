"""What a deployment is to a follower, and the steps by which it goes from one to another."""

import dataclasses
from dataclasses import dataclass

from service.deployment import Deployment
from service.direct_routes import render_direct
from service.follower import GATEWAY, Place
from service.gateway import render
from service.gateway_stages import join_deployments, plan_stages
from service.xds_resources import ResourceReader, Resources


@dataclass(frozen=True)
class Step:
    """Resources that a follower goes by before it is sent those of the next step."""

    name: str
    resources: Resources


@dataclass(frozen=True)
class Way:
    """How a follower goes from one deployment to another.

    Attributes
    ----------
    steps
        After the last of them all traffic is led as the new deployment says.
    end
        What only the old one had is gone.
    has_removals
        Whether there is anything of the kind.
    """

    steps: tuple[Step, ...]
    end: Step
    has_removals: bool


class Planner:
    """Makes resources of deployments; remembers what it has read."""

    def __init__(self) -> None:
        self._reader = ResourceReader()

    def read(self, place: Place, deployment: Deployment) -> Resources:
        """All that a follower goes by."""
        if place.kind == GATEWAY:
            return self._reader.read(render(_put(deployment, place)))
        return self._reader.read(render_direct(deployment, deployment))

    def plan(self, place: Place, old: Deployment, new: Deployment) -> Way:
        """How a follower gets there: what is referred to comes first, and goes last."""
        end = Step("end of the old", self.read(place, new))
        if place.kind != GATEWAY:
            # gRPC clients put a split in force once they know the servers of all its versions.
            both = self._reader.read(render_direct(new, join_deployments(old, new)))
            return Way((Step("servers of both, new routes", both),), end, both != end.resources)
        old, new = _put(old, place), _put(new, place)
        *stages, last = plan_stages(old, new)
        files, steps = dict(render(old)), []
        for stage in stages:
            files |= stage.files
            steps.append(Step(stage.name, self._reader.read(files)))
        return Way(tuple(steps), end, bool(last.idle_clusters))


def _put(deployment: Deployment, place: Place) -> Deployment:
    """The deployment with listeners where this gateway has them."""
    return dataclasses.replace(
        deployment, gateway=place.gateway or deployment.gateway, operator=place.operator or deployment.operator
    )
