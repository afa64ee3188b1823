"""The options by which a command reaches a server: its address, and the certificates on both sides."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.client import Client

Url = Annotated[str, typer.Option(help="Host and port of the gateway, or of a server.", metavar="HOST:PORT")]
StateDir = Annotated[
    Path,
    typer.Option(envvar="SLUICE_STATE_DIR", help="Folder of a deployment, whose client certificate is shown."),
]
Authority = Annotated[Path | None, typer.Option("--ca", help="Authorities that vouch for the server, PEM.")]
Certificate = Annotated[Path | None, typer.Option("--cert", help="Certificate to show, PEM.")]
Key = Annotated[Path | None, typer.Option("--key", help="Its private key, PEM.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Speak plain text.")]
Timeout = Annotated[float, typer.Option(help="Seconds that a call may take.", min=0.001)]

DEFAULT_URL = "127.0.0.1:8443"
DEFAULT_STATE_DIR = Path(".sluice")
DEFAULT_TIMEOUT_S = 30.0


def open_client(
    url: str,
    *,
    state_dir: Path,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
    timeout: float,
) -> "Client":
    """A client for the options given; what is not given of the certificates is the deployment's own.

    Raises
    ------
    ClientError
        A file that cannot be read.
    typer.BadParameter
        Certificates for plain text.
    """
    from service.client import Client, Credentials

    if insecure and (ca or cert or key):
        raise typer.BadParameter("expected alone, given with --ca, --cert or --key", param_hint="--insecure")
    if insecure:
        return Client(url, timeout_s=timeout)
    if ca or cert or key:
        own = Credentials.of_state(state_dir)
        return Client(url, Credentials(ca or own.authority, cert, key), timeout_s=timeout)
    return Client(url, Credentials.of_state(state_dir), timeout_s=timeout)
