"""`sluice access`: who may do what by a deployment file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.access_policy import ACTIONS

if TYPE_CHECKING:
    from service.deployment import Deployment

access = typer.Typer(no_args_is_help=True, help="Explain who may do what by a deployment file.")

DENIED, FAILED = 1, 2


@access.callback()
def _keep_name() -> None:
    """Have `check` be typed, though it is the only one."""


@access.command()
def check(
    file: Annotated[Path, typer.Argument(help="The deployment file.", metavar="FILE")],
    action: Annotated[str, typer.Option(help=f"One of {', '.join(ACTIONS)}.")],
    model: Annotated[str | None, typer.Option(help="Name of the model; without it, what concerns no model.")] = None,
    certificates: Annotated[
        list[str] | None, typer.Option("--as", metavar="URI", help="URI name in the caller's certificate; may repeat.")
    ] = None,
    claims: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Claims of the caller's token; `iss` is known where there is one issuer."),
    ] = None,
    token: Annotated[
        Path | None, typer.Option(help="File with the caller's token; its signature is not verified.")
    ] = None,
) -> None:
    """Say whether a caller may do something, and by which roles, grants and lines of the file.

    The exit code is 0 when it is allowed, 1 when it is denied, 2 when that could not be found out.
    """
    from service.access_explanation import explain
    from service.access_policy import Identity
    from service.yaml_document import read_yaml

    if action not in ACTIONS:
        _fail(f"--action: expected one of {', '.join(ACTIONS)}, given {action!r}")
    if claims is not None and token is not None:
        _fail("expected --claims or --token, given both")
    deployment = _read(file)
    shown = _read_token(token) if token is not None else _parse_claims(claims, deployment)
    identity = Identity(tuple(certificates or ()), shown)
    document = read_yaml(file.read_text(encoding="utf-8"))
    explanation = explain(deployment, identity, action, model, document.find_line)
    if token is not None:
        typer.echo(f"{token}: unverified: whoever wrote it may claim anything")
    for line in explanation.lines:
        typer.echo(line)
    raise typer.Exit(0 if explanation.allowed else DENIED)


def _read(file: Path) -> "Deployment":
    from service.deployment_file import DeploymentFileError, read_deployment

    try:
        return read_deployment(file)
    except DeploymentFileError as error:
        _fail(str(error))


def _read_token(file: Path) -> dict[str, Any]:
    from service.token_keys import read_claims

    try:
        return read_claims(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _fail(f"{file}: {error}")


def _parse_claims(text: str | None, deployment: "Deployment") -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        claims = json.loads(text)
    except ValueError as error:
        _fail(f"--claims: expected JSON: {error}")
    if not isinstance(claims, dict):
        _fail(f"--claims: expected an object, given {text}")
    issuers = deployment.access.issuers.values() if deployment.access else ()
    if "iss" not in claims and len(issuers) == 1:
        return {"iss": next(iter(issuers)).issuer, **claims}
    return claims


def _fail(text: str) -> None:
    """Say why and end."""
    typer.echo(f"sluice access: {text}", err=True)
    raise typer.Exit(FAILED)
