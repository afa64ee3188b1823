"""The options by which `sluice traffic` finds the gateway that is meant."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.connection_options import DEFAULT_STATE_DIR

if TYPE_CHECKING:
    from service.admin import OperatorListener
    from service.deployment import Endpoint
    from service.traffic_place import TrafficPlace

StateDir = Annotated[
    Path, typer.Option(envvar="SLUICE_STATE_DIR", help="Folder of the gateway's state, or of yours with --operator.")
]


def find_place(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The operator listener of a gateway elsewhere, in place of its own socket."
        ),
    ] = None,
    cert: Annotated[Path | None, typer.Option("--cert", help="Operator's certificate to show to it, PEM.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key, PEM.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Authorities that vouch for the gateway, PEM.")] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(
            "--deployment", metavar="FILE", help="What the gateway was rendered from, unless the state has it."
        ),
    ] = None,
) -> "TrafficPlace":
    """The gateway that the options mean; what is not given of the certificates is the state folder's own."""
    from service.deployment import Endpoint
    from service.traffic_place import TrafficPlace

    state_folder = state_dir.resolve()
    if operator is None:
        if cert or key or ca:
            raise typer.BadParameter("expected together with --operator", param_hint="--cert, --key, --ca")
        return TrafficPlace(state_folder, deployment_file=deployment)
    listener = _fill_certificates(Endpoint.parse(operator, ("operator",)), state_folder / "certs", cert, key, ca)
    return TrafficPlace(state_folder, listener, deployment)


def at_place(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options besides its own; it is called with `open_place`, which makes a place of them."""
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "open_place"]
    ours = inspect.signature(find_place).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in ours}
        command(open_place=functools.partial(find_place, **options), **given)

    parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in (*own, *ours.values())]
    # Both are what Typer reads.
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _fill_certificates(
    endpoint: "Endpoint", certificates: Path, cert: Path | None, key: Path | None, ca: Path | None
) -> "OperatorListener":
    from service.admin import OperatorListener

    own = OperatorListener.of_state(endpoint, certificates)
    return dataclasses.replace(
        own, authority=ca or own.authority, certificate=cert or own.certificate, key=key or own.key
    )
