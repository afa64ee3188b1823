"""`sluice certs` shows and renews."""

import pytest
import typer
from typer.testing import CliRunner

from service.commands.certs import certs


@pytest.fixture
def invoke(tmp_path):
    """Run the command on a folder of its own."""
    app = typer.Typer()
    app.command("certs")(certs)
    return lambda *arguments: CliRunner().invoke(app, ["--state-dir", str(tmp_path), *arguments])


def test_certs_without_certificates_exits_1_and_says_how(invoke):
    """Nothing is made unasked; the way to make it is named."""
    result = invoke()
    assert result.exit_code == 1
    assert result.stdout.count("missing") == 10
    assert "sluice certs --renew" in result.stderr


def test_certs_with_renew_makes_and_lists_them(invoke, tmp_path):
    """The table names each certificate, its identity, issuer and days left."""
    result = invoke("--renew")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("operator "))
    assert "spiffe://sluice.local/operator/demo" in row
    assert "sluice gateway-ca" in row
    assert row.split()[-2:] == ["364", "valid"]
    before = (tmp_path / "certs" / "operator.pem").read_bytes()
    assert invoke().exit_code == 0
    assert (tmp_path / "certs" / "operator.pem").read_bytes() == before
    invoke("--renew")
    assert (tmp_path / "certs" / "operator.pem").read_bytes() != before
