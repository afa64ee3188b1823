"""`sluice up`: the whole deployment in one command."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.plan import Plan
    from service.supervisor import Supervisor


def up(
    model_repository: Annotated[
        Path | None, typer.Option(help="Folder that holds the models; default: models in the state folder.")
    ] = None,
    state_dir: Annotated[
        Path, typer.Option(envvar="SLUICE_STATE_DIR", help="Folder for certificates, configuration and logs.")
    ] = Path(".sluice"),
    host: Annotated[str, typer.Option(help="Address that the gateway listens on.")] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option(help="Port for clients.")] = 8443,
    operator_port: Annotated[int, typer.Option(help="Port for operators, on 127.0.0.1.")] = 9443,
    grpc_port: Annotated[int, typer.Option(help="Port of the service behind the gateway, on 127.0.0.1.")] = 8001,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL:VERSION=WEIGHT,...",
            help="Split of a model's traffic, as in digits:1=90,2=10; repeat it for more models. Versions left out get "
            "none. Without it: what was last set for good, else all to the highest version.",
        ),
    ] = None,
    max_message_bytes: Annotated[int, typer.Option(help="Largest message, at both ends and between.")] = 64 * 2**20,
    drain_timeout: Annotated[float, typer.Option(help="Seconds that requests may take to finish at the end.")] = 30.0,
    gateway_threads: Annotated[int, typer.Option(help="Threads of Envoy that serve.")] = 1,
    envoy: Annotated[Path | None, typer.Option(help="Envoy's executable; found by itself if installed.")] = None,
) -> None:
    """Start the service and Envoy in front of it, keep both running, and drain both on Ctrl-C or SIGTERM.

    A second Ctrl-C ends them at once.
    """
    from service.deployment import DeploymentError, Endpoint, parse_weights
    from service.plan import Plan

    try:
        plan = Plan(
            model_repository=model_repository or state_dir / "models",
            state_folder=state_dir.resolve(),
            gateway=Endpoint(host, gateway_port),
            operator=Endpoint("127.0.0.1", operator_port),
            service=Endpoint("127.0.0.1", grpc_port),
            weights=dict(map(parse_weights, weights or ())),
            max_message_bytes=max_message_bytes,
            drain_timeout_s=drain_timeout,
            gateway_threads=gateway_threads,
            envoy=envoy,
        )
    except DeploymentError as error:
        raise typer.BadParameter(str(error)) from None
    run(plan)


def run(plan: "Plan") -> None:
    """Run a deployment until a signal ends it."""
    from service.logs import configure_logs
    from service.supervisor import Supervisor, SupervisorError

    configure_logs("info", "text")
    supervisor = Supervisor(plan)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.request_stop())
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.request_replacement())
    try:
        supervisor.start()
        typer.echo(describe(supervisor))
        supervisor.wait()
    except SupervisorError as error:
        typer.echo(f"sluice up: {error}", err=True)
        raise typer.Exit(1) from None


def describe(supervisor: "Supervisor") -> str:
    """Say in a few lines what is up and where."""
    deployment = supervisor.deployment
    lines = [f"gateway   {deployment.gateway}  gRPC, mTLS", f"operator  {deployment.operator}  Envoy's admin, mTLS"]
    for model in deployment.models:
        split = ", ".join(f"version {number}: {weight}" for number, weight in deployment.weights(model).items())
        lines.append(f"model     {model}  {split}")
    return "\n".join([*lines, f"state     {supervisor.plan.state_folder}", "Ctrl-C drains and stops."])
