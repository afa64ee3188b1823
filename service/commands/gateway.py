"""`sluice gateway`: a deployment that is declared in a file: checked, compared, put in force, and kept running."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.deployment import Deployment
    from service.fleet_member import FleetMember

gateway = typer.Typer(no_args_is_help=True, help="Render, check, compare, apply and run a deployment file's gateway.")

File = Annotated[Path, typer.Argument(help="The deployment file.", metavar="FILE")]
StateDir = Annotated[
    Path, typer.Option(envvar="SLUICE_STATE_DIR", help="Folder of the gateway's configuration, logs and admin socket.")
]
DEFAULT_STATE_DIR = Path(".sluice")
Executable = Annotated[Path | None, typer.Option(help="Envoy's executable; found by itself if installed.")]
DIFFERENT, FAILED = 1, 2


@gateway.command()
def schema() -> None:
    """Print the JSON Schema of deployment files, for editors and checks."""
    from service.deployment_file import load_schema

    typer.echo(json.dumps(load_schema(), indent=2))


@gateway.command()
def validate(file: File, envoy: Executable = None) -> None:
    """Check a deployment file, and have Envoy check what is rendered from it. Nothing is changed."""
    from service.envoy_check import GatewayError, check, find_envoy
    from service.gateway import render

    deployment = read(file)
    try:
        check(render(deployment), find_envoy(envoy))
    except GatewayError as error:
        fail(str(error))
    versions = sum(map(len, deployment.models.values()))
    typer.echo(f"{file}: valid; models: {len(deployment.models)}, versions: {versions}")


@gateway.command()
def render(
    file: File, output: Annotated[Path, typer.Option(help="Folder to write Envoy's files to, made if missing.")]
) -> None:
    """Write the files that Envoy would be given, to look at them or to run another Envoy on them."""
    from certs.files import replace_file
    from service.gateway import render as render_files

    for path, content in render_files(read(file)).items():
        target = output / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content)
        except OSError as error:
            fail(str(error))
        typer.echo(str(target))


@gateway.command()
def diff(file: File, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Say what applying a file would change, and where the running Envoy does not go by what it was given.

    The exit code is 0 when there is nothing to say, 1 when there is, 2 when that could not be found out.
    """
    from service.admin import AdminError
    from service.applied_deployment import read_applied
    from service.deployment import DeploymentError
    from service.deployment_diff import compare_deployments
    from service.drift import find_drift

    new = read(file)
    try:
        lines = [str(difference) for difference in compare_deployments(read_applied(state_dir), new)]
        lines += find_drift(state_dir)
    except (DeploymentError, AdminError) as error:
        fail(str(error))
    for line in lines:
        typer.echo(line)
    raise typer.Exit(DIFFERENT if lines else 0)


@gateway.command()
def apply(
    file: File,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    drain_timeout: Annotated[float, typer.Option(help="Seconds that calls to what goes may take to finish.")] = 30.0,
    envoy: Executable = None,
) -> None:
    """Put a deployment in force, in an order in which no call is led nowhere; what was in force stays if that fails.

    Without a running gateway its files are put in place for the next start.
    """
    from service.admin import AdminError
    from service.deployment import DeploymentError
    from service.envoy_check import GatewayError, find_envoy
    from service.gateway_apply import GatewayChange
    from service.instance import InstanceError

    deployment = read(file)
    try:
        change = GatewayChange(state_dir, find_envoy(envoy), drain_timeout, lambda stage: typer.echo(f"{stage} ..."))
        is_running = change.apply(deployment)
    except (GatewayError, AdminError, InstanceError, DeploymentError) as error:
        fail(str(error))
    typer.echo("in force" if is_running else "in place; no gateway is running")


@gateway.command()
def run(
    file: Annotated[Path | None, typer.Argument(help="The deployment file.", metavar="FILE")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    drain_timeout: Annotated[float, typer.Option(help="Seconds that requests may take to finish at the end.")] = 30.0,
    threads: Annotated[int, typer.Option(help="Threads of Envoy that serve.", min=1)] = 1,
    envoy: Executable = None,
    control: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Control plane that says what to go by, in place of FILE.")
    ] = None,
    node: Annotated[str, typer.Option(help="With --control: this gateway's name; default: the machine's.")] = "",
    certificates: Annotated[
        Path | None,
        typer.Option(help="With --control: folder of certificates; default: certs in the state folder."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="With --control: for clients, if not where that says."),
    ] = None,
    operator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --control: likewise, for operators.")
    ] = None,
    client_crl: Annotated[
        Path | None, typer.Option(help="With --control: file of lists of revoked certificates, PEM.")
    ] = None,
) -> None:
    """Run Envoy on a deployment file, keep it running, and drain it on Ctrl-C or SIGTERM. Services run elsewhere.

    With --control it is one of a fleet, and needs no file.
    """
    from service.commands.up import run as run_plan
    from service.plan import Plan

    if (file is None) == (control is None):
        fail("expected either FILE or --control")
    member = None
    if control is not None:
        member = make_member(control, node, certificates or state_dir / "certs", listen, operator, client_crl)
    plan = Plan(
        state_folder=state_dir.resolve(),
        declared=read(file) if file else None,
        member=member,
        drain_timeout_s=drain_timeout,
        gateway_threads=threads,
        envoy=envoy,
    )
    run_plan(plan)


def make_member(
    control: str, node: str, certificates: Path, listen: str | None, operator: str | None, client_crl: Path | None
) -> "FleetMember":
    """The gateway of a fleet that options describe, or the end with what is wrong with them."""
    import socket

    from service.deployment import DeploymentError, Endpoint
    from service.fleet_member import FleetMember

    try:
        return FleetMember(
            control=Endpoint.parse(control),
            node=node or socket.gethostname(),
            certificates=certificates,
            gateway=Endpoint.parse(listen) if listen else None,
            operator=Endpoint.parse(operator) if operator else None,
            client_crl=client_crl,
        )
    except DeploymentError as error:
        fail(str(error))


@gateway.command()
def restart(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    timeout: Annotated[float, typer.Option(help="Seconds that the new one may take to come up.")] = 120.0,
) -> None:
    """Put a new Envoy in the place of the one that runs, as for an upgrade of its program.

    It takes over the sockets; calls under way have the drain timeout of `up` or `run` to finish with the old one.
    """
    from service.admin import AdminError
    from service.envoy_check import GatewayError
    from service.gateway_restart import restart_gateway
    from service.instance import InstanceError

    try:
        restart_gateway(state_dir.resolve(), timeout)
    except (GatewayError, AdminError, InstanceError) as error:
        fail(str(error))
    typer.echo("a new Envoy serves; the old one finishes what it has under way")


def read(file: Path) -> "Deployment":
    """The deployment of a file, or the end with what is wrong with it."""
    from service.deployment_file import DeploymentFileError, read_deployment

    try:
        return read_deployment(file)
    except DeploymentFileError as error:
        fail(str(error))


def fail(text: str) -> None:
    """Say why and end."""
    typer.echo(f"sluice gateway: {text}", err=True)
    raise typer.Exit(FAILED)
