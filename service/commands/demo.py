"""`sluice demo`: two models of handwritten digits behind the gateway, and a shift of traffic between them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.plan import Plan
    from service.supervisor import Supervisor


def demo(
    state_dir: Annotated[
        Path, typer.Option(envvar="SLUICE_STATE_DIR", help="Folder for models, certificates, configuration and logs.")
    ] = Path(".sluice"),
    gateway_port: Annotated[int, typer.Option(help="Port for clients, on 127.0.0.1.")] = 8443,
    operator_port: Annotated[int, typer.Option(help="Port for operators, on 127.0.0.1.")] = 9443,
    grpc_port: Annotated[int, typer.Option(help="Port of the service behind the gateway, on 127.0.0.1.")] = 8001,
    once: Annotated[
        bool, typer.Option("--once", help="End after the shift: with 0 when all was as it should be, else with 1.")
    ] = False,
) -> None:
    """Classify handwritten digits with two model versions behind Envoy, shifted from 90/10 to 50/50 under load.

    Trains the models and makes the certificates when they are missing. Stays up, and prints commands to try on it.
    """
    from service.demo.tour import FIRST_SPLIT
    from service.demo.training import MODEL
    from service.deployment import DeploymentError, Endpoint
    from service.plan import Plan

    try:
        gateway, operator, service = (Endpoint("127.0.0.1", port) for port in (gateway_port, operator_port, grpc_port))
    except DeploymentError as error:
        raise typer.BadParameter(str(error)) from None
    state_folder = state_dir.resolve()
    run(
        Plan(
            model_repository=state_folder / "models",
            state_folder=state_folder,
            gateway=gateway,
            operator=operator,
            service=service,
            weights={MODEL: FIRST_SPLIT},
        ),
        once,
    )


def run(plan: "Plan", once: bool) -> None:
    """Go through the demonstration, and then, unless `once`, stay up until a signal comes."""
    from rich.console import Console

    from service.admin import AdminError
    from service.client import ClientError
    from service.demo.digits import DemoError
    from service.demo.tour import Tour
    from service.logs import configure_logs
    from service.supervisor import Supervisor, SupervisorError

    configure_logs("warning", "text")
    # SIGINT too: a shell that starts a program in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    supervisor = Supervisor(plan)
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.request_replacement())
    tour = Tour(supervisor, Console())
    try:
        tour.prepare()
        with _stopping(supervisor):
            tour.start()
            tour.show_shift()
            if not once:
                tour.show_snippets()
                _wait(supervisor)
    except (DemoError, ClientError, AdminError, SupervisorError) as error:
        typer.echo(f"sluice demo: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _wait(supervisor: "Supervisor") -> None:
    """Return at the signal that is the way to end a demonstration that has shown everything."""
    with suppress(KeyboardInterrupt):
        typer.echo("\nStays up; Ctrl-C drains and stops.")
        supervisor.wait()


@contextmanager
def _stopping(supervisor: "Supervisor") -> Iterator[None]:
    """Drain and end the deployment at the end of the block, however that comes; a signal then is for hurrying up."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: supervisor.request_stop())
        supervisor.stop()
