"""What a deployment says of the control plane that serves it: where that listens, and who may follow it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from certs.identities import GATEWAY_URI
from service.deployment import DeploymentError, Endpoint, Version

# Where it listens unless a deployment says otherwise.
CONTROL = Endpoint("127.0.0.1", 18443)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """The section `control` of a deployment file.

    Attributes
    ----------
    listen
        Where gateways and gRPC clients reach the control plane, with mTLS.
    gateways
        URI names in certificates that get what a gateway goes by.
    clients
        URI names in certificates that get the routes of gRPC clients without a gateway.
    direct
        Models that such clients may call; every server of one serves a single version.
    """

    listen: Endpoint = CONTROL
    gateways: tuple[str, ...] = (GATEWAY_URI,)
    clients: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()

    def check(self, models: Mapping[str, Mapping[int, Version]]) -> None:
        """Raise DeploymentError where the models of the deployment do not allow it."""
        if both := sorted({*self.gateways} & {*self.clients}):
            raise DeploymentError(f"expected gateways and clients to differ, given {both[0]} as both", ("control",))
        for index, model in enumerate(self.direct):
            _check_direct(model, models, ("control", "direct", index))


def read_control(declared: Mapping[str, Any]) -> ControlSettings:
    """The section of a file that the schema allows, its defaults filled in."""
    return ControlSettings(
        listen=Endpoint.parse(declared["listen"], ("control", "listen")),
        **{name: tuple(declared[name]) for name in ("gateways", "clients", "direct")},
    )


def describe_control(settings: ControlSettings) -> dict[str, Any]:
    """The section of the file for settings: every field, with its default too."""
    lists = {name: list(getattr(settings, name)) for name in ("gateways", "clients", "direct")}
    return {"listen": str(settings.listen), **lists}


def _check_direct(model: str, models: Mapping[str, Mapping[int, Version]], path: tuple[str | int, ...]) -> None:
    if model not in models:
        raise DeploymentError(f"expected one of {', '.join(sorted(models))}, given {model!r}", path)
    owners: dict[Endpoint, int] = {}
    for number, version in models[model].items():
        for endpoint in version.endpoints:
            if owners.setdefault(endpoint, number) != number:
                raise DeploymentError(
                    f"model {model!r}: expected servers of one version each, since no gateway tells them which one is "
                    f"meant; {endpoint} serves versions {owners[endpoint]} and {number}",
                    path,
                )
