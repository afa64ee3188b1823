"""`sluice limits serve`, where it cannot start: one line that says why, and exit code 1."""

import socket

import pytest
from typer.testing import CliRunner

from certs import ensure_certificates
from service.cli import app

FILE = "models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}\ncertificates: certs\n"


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        (None, [], "deployment.yaml: [Errno 2] No such file"),
        ("limits: [", [], "deployment.yaml: line 1: "),
        (FILE, ["--listen", "localhost:1"], "expected an IP address and a port from 1 to 65535, given 'localhost:1'"),
        (FILE, ["--redis", "http://127.0.0.1"], "Redis: "),
        (FILE.replace("certs", "nowhere"), ["--listen", "127.0.0.1:1"], "nowhere/limits.key"),
    ],
)
def test_service_that_cannot_start_says_why(tmp_path, text, options, problem):
    """Nothing is left behind, and no traceback shown."""
    ensure_certificates(tmp_path / "certs")
    file = tmp_path / "deployment.yaml"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(app, ["limits", "serve", str(file), *options])
    assert result.exit_code == 1
    assert result.stderr.startswith("sluice limits serve: ")
    assert problem in result.stderr


def test_port_that_is_taken_is_refused(tmp_path):
    """Two services would share its connections in silence."""
    ensure_certificates(tmp_path / "certs")
    file = tmp_path / "deployment.yaml"
    file.write_text(FILE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(app, ["limits", "serve", str(file), "--listen", where])
    assert result.exit_code == 1
    assert f"cannot listen on {where}" in result.stderr
