"""The command `sluice`: assembles its subcommands."""

from importlib import import_module
from typing import Annotated

import typer

from service import __version__

# In the order of the help page; each is a function of the same name in a module of the same name, or an application of
# its own with further commands.
COMMANDS = (
    "up",
    "serve",
    "check",
    "demo",
    "infer",
    "models",
    "certs",
    "doctor",
    "gateway",
    "traffic",
    "access",
    "token",
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {__version__}")
        raise typer.Exit


@app.callback()
def sluice(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Serve ONNX models over gRPC, batched and versioned, behind Envoy.

    Start with `sluice up`, which runs the gateway and the server together, or `sluice serve`, which runs the server
    alone.
    """


def _add_command(name: str) -> None:
    command = getattr(import_module(f"service.commands.{name}"), name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


for name in COMMANDS:
    _add_command(name)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="sluice")
