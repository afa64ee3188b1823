"""`sluice token`: keys and tokens to try a gateway with, before there is an issuer."""

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certs.files import SECRET_MODE, replace_file

if TYPE_CHECKING:
    from service.token_keys import Key

token = typer.Typer(
    no_args_is_help=True,
    help="Make keys and tokens for development. In production an OAuth 2.0 server issues tokens and keeps its keys.",
)

WARNING = "for development only: whoever has this key can be anybody to a gateway that believes it"
KeyFile = Annotated[Path, typer.Argument(help="The private key's file, PEM.", metavar="KEY")]


@token.command()
def key(
    file: KeyFile,
    algorithm: Annotated[str, typer.Option(help="ES256 or RS256.")] = "ES256",
) -> None:
    """Make a private key by which tokens can be signed, readable by its owner alone. A file that is there stays."""
    from service.token_keys import ALGORITHMS, make_key

    if algorithm not in ALGORITHMS:
        _fail(f"--algorithm: expected one of {', '.join(ALGORITHMS)}, given {algorithm!r}")
    if file.exists():
        _fail(f"{file}: is there already, and tokens that it has signed may be in use")
    _write(file, make_key(algorithm))
    typer.echo(f"{file}: {WARNING}", err=True)


@token.command()
def jwks(files: Annotated[list[Path], typer.Argument(help="Files of private keys, PEM.", metavar="KEY...")]) -> None:
    """Print the public halves of keys as the JSON Web Key Set that `jwks_file` of a deployment names."""
    from service.token_keys import describe_key

    typer.echo(json.dumps({"keys": [describe_key(_load(file)) for file in files]}, indent=2))


@token.command()
def make(
    file: KeyFile,
    issuer: Annotated[str, typer.Option(help="The claim `iss`.")],
    audience: Annotated[str, typer.Option(help="The claim `aud`.")],
    subject: Annotated[str, typer.Option(help="The claim `sub`.")] = "developer",
    claims: Annotated[
        str, typer.Option(metavar="JSON", help="More claims, which also replace those that are made.")
    ] = "{}",
    lasts: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long it is valid.")] = "1h",
    output: Annotated[Path | None, typer.Option(help="File to write it to, readable by its owner alone.")] = None,
) -> None:
    """Sign a token and print it."""
    from service.duration import DurationError, parse_duration
    from service.token_keys import sign_token

    try:
        seconds = parse_duration(lasts)
    except DurationError as error:
        _fail(f"--for: {error}")
    now = int(time.time())
    made = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "iat": now,
        "exp": now + int(seconds),
        "jti": uuid.uuid4().hex,
    }
    signed = sign_token(_load(file), {**made, **_parse_claims(claims)})
    typer.echo(WARNING, err=True)
    if output is None:
        typer.echo(signed)
    else:
        _write(output, signed.encode() + b"\n")


def _parse_claims(text: str) -> dict[str, Any]:
    try:
        claims = json.loads(text)
    except ValueError as error:
        _fail(f"--claims: expected JSON: {error}")
    if not isinstance(claims, dict):
        _fail(f"--claims: expected an object, given {text}")
    return claims


def _load(file: Path) -> "Key":
    from service.token_keys import TokenKeyError, load_key

    try:
        return load_key(file)
    except TokenKeyError as error:
        _fail(str(error))


def _write(file: Path, content: bytes) -> None:
    try:
        replace_file(file, content, SECRET_MODE)
    except OSError as error:
        _fail(str(error))


def _fail(text: str) -> None:
    """Say why and end."""
    typer.echo(f"sluice token: {text}", err=True)
    raise typer.Exit(1)
