"""The command line: help, version, and settings as options of a command."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from service import __version__
from service.cli import COMMANDS, app
from service.commands.settings_options import takes_settings
from service.settings import TABLE, Settings, flag_name


def run(application, *arguments, **environment):
    """Run a command line in this process."""
    return CliRunner().invoke(application, arguments, env={"COLUMNS": "200"} | environment)


@pytest.fixture
def command():
    """A command that takes settings, and the settings that it was called with."""
    application, calls = typer.Typer(), []

    @application.command()
    @takes_settings
    def show(settings: Settings, loud: bool = False) -> None:
        """Show the settings."""
        calls.append((settings, loud))

    return application, calls


def test_help_names_every_command():
    """Every command has a line of help."""
    result = run(app, "--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f" {name} " in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_command_imports_and_prints(name):
    """No command needs its heavy imports to explain itself."""
    result = run(app, name, "--help")
    assert result.exit_code == 0
    assert f"sluice {name}" in result.output or f" {name} " in result.output


def test_cli_loads_nothing_heavy():
    """Help comes at once: no gRPC, no NumPy, no kernels before a command runs."""
    code = "import sys, service.cli; print(sorted({'grpc', 'numpy', 'kernels', 'google.protobuf'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_version_prints_that_of_the_package():
    """What to put into a bug report."""
    assert run(app, "--version").output == f"sluice {__version__}\n"


def test_takes_settings_gives_every_setting_an_option(command):
    """The table is the only list of settings."""
    output = run(command[0], "--help").output
    assert [name for name in TABLE if flag_name(name) not in output] == []


def test_takes_settings_calls_the_command_with_what_was_given(command, tmp_path):
    """Flags, variables, and options of the command's own."""
    arguments = ("--model-repository", str(tmp_path), "--insecure", "--drain-timeout", "1.5", "--loud")
    result = run(command[0], *arguments, SLUICE_WORKERS="3")
    assert result.exit_code == 0
    ((settings, loud),) = command[1]
    assert (settings.workers, settings.drain_timeout_s, loud) == (3, 1.5, True)
    assert settings.origins["workers"] == "SLUICE_WORKERS"


def test_takes_settings_with_repeated_flag_collects_them(command, tmp_path):
    """A setting of several values is given several times."""
    certificate = tmp_path / "a.pem"
    certificate.write_text("")
    tls = [part for name in ("--tls-cert", "--tls-key", "--tls-client-ca") for part in (name, str(certificate))]
    clients = ("--allowed-client", "spiffe://a/b", "--allowed-client", "spiffe://a/c")
    run(command[0], "--model-repository", str(tmp_path), *tls, *clients)
    assert command[1][0][0].allowed_clients == ("spiffe://a/b", "spiffe://a/c")


def test_takes_settings_with_wrong_value_ends_with_two_and_one_line(command, tmp_path):
    """A mistake of the caller's gets a sentence and no traceback."""
    result = run(command[0], "--model-repository", str(tmp_path), "--insecure", "--grpc-port", "http")
    assert result.exit_code == 2
    assert result.output == "sluice: setting grpc_port from --grpc-port: expected a whole number, given 'http'\n"
    assert command[1] == []


def test_takes_settings_to_print_does_not_run_the_command(command, tmp_path):
    """The outcome with its origins, as a file to keep."""
    result = run(command[0], "--model-repository", str(tmp_path), "--no-insecure", "--insecure", "--print-settings")
    assert result.exit_code == 0
    assert command[1] == []
    lines = {line.split(" = ")[0]: line for line in result.output.splitlines() if " = " in line}
    assert lines["insecure"].split() == ["insecure", "=", "true", "#", "--insecure"]
    assert lines["host"].endswith("# default")
