"""`sluice control`: one deployment for a fleet of gateways, and for gRPC clients that need none."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.gateway import DEFAULT_STATE_DIR, Executable, File, StateDir, read

if TYPE_CHECKING:
    from service.deployment import Deployment

control = typer.Typer(no_args_is_help=True, help="Serve a deployment file to a fleet of gateways and to gRPC clients.")

FAILED = 2


@control.command()
def serve(
    file: File,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    drain_timeout: Annotated[float, typer.Option(help="Seconds that calls to what goes may take to finish.")] = 30.0,
    envoy: Executable = None,
) -> None:
    """Serve a deployment to those whom it names, until Ctrl-C or SIGTERM.

    A later start serves what was put in force last. What the file says beyond that is put in force by `apply`.
    """
    from service.control_client import ControlError
    from service.envoy_check import GatewayError, find_envoy
    from service.logs import configure_logs
    from service.xds_types import XdsError, find_services

    deployment = _read(file)
    configure_logs("info", "text")
    try:
        find_services()
        from service.control_plane import serve as run
    except XdsError as error:
        _fail(str(error))
    try:
        run(deployment, state_dir.resolve(), find_envoy(envoy), drain_timeout, _greet)
    except (ControlError, GatewayError) as error:
        _fail(str(error))


@control.command()
def apply(
    file: File,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    unhealthy_too: Annotated[
        bool, typer.Option("--unhealthy-too", help="Also give traffic to versions without a healthy server.")
    ] = False,
) -> None:
    """Put a deployment in force: for one gateway and one client first, then for all; if one refuses it, for nobody."""
    from service.deployment_file import format_deployment

    deployment = format_deployment(_read(file))
    request = {"command": "apply", "deployment": deployment, "unhealthy_too": unhealthy_too}
    for line in _ask(state_dir, request):
        if "stage" in line:
            typer.echo(f"{line['stage']} ...")
        elif "error" in line:
            _fail(line["error"])
        else:
            typer.echo(f"in force; followed by {line['followers']}")
            return
    _fail("the control plane ended before the change did; what was in force before is served at its next start")


@control.command()
def show(state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Show who follows: since when, and which version of each type was sent, acknowledged (ACK) and refused (NACK)."""
    for answer in _ask(state_dir, {"command": "show"}):
        if answer["halted"]:
            typer.echo(f"the last change was halted: {answer['halted']}")
        for follower in answer["followers"]:
            typer.echo(f"{follower['kind']} {follower['node']}  {follower['address']}  {follower['identity']}")
            typer.echo(f"  since {follower['since']}")
            for kind, state in follower["types"].items():
                typer.echo(_describe(kind, state))
        typer.echo(f"followers: {len(answer['followers'])}")


@control.command()
def bootstrap(
    file: File,
    node: Annotated[str, typer.Option(help="The client's name for itself, as `sluice control show` shows it.")] = "",
    certificate: Annotated[
        str, typer.Option(help="Name of the client's certificate in the folder of certificates, without .pem.")
    ] = "client",
) -> None:
    """Print the bootstrap file of a gRPC client, which GRPC_XDS_BOOTSTRAP names; it then calls xds:///MODEL."""
    import socket

    from certs.identities import INTERNAL_CA
    from service.direct_routes import describe_client

    deployment = _read(file)
    folder = deployment.certificates
    files = {
        "certificate": folder / f"{certificate}.pem",
        "key": folder / f"{certificate}.key",
        "authority": folder / f"{INTERNAL_CA}.pem",
    }
    typer.echo(describe_client(deployment.control.listen, node or socket.gethostname(), files))


def _read(file: Path) -> "Deployment":
    deployment = read(file)
    if deployment.control is None:
        _fail(f"{file}: expected 'control', which is missing; an empty one, control: {{}}, has defaults")
    return deployment


def _ask(state_dir: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from service.control_client import ControlError, ask

    try:
        yield from ask(state_dir, request)
    except ControlError as error:
        _fail(str(error))


def _describe(kind: str, state: dict[str, str]) -> str:
    line = f"  {kind:<22} sent {state['sent'] or '-'}  ACK {state['acked'] or '-'}"
    return f"{line}  NACK {state['nacked']}: {state['reason']}" if state["nacked"] else line


def _greet(deployment: "Deployment") -> None:
    typer.echo(f"control   {deployment.control.listen}  xDS, mTLS")
    typer.echo(
        f"models    {len(deployment.models)}; without a gateway: {', '.join(deployment.control.direct) or 'none'}"
    )
    typer.echo("Ctrl-C stops.")


def _fail(text: str) -> None:
    typer.echo(f"sluice control: {text}", err=True)
    raise typer.Exit(FAILED)
