"""`sluice models`: what a server has loaded, what it takes and gives, and why something does not serve."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands import connection_options as options

if TYPE_CHECKING:
    from service.client import Client
    from service.pb.open_inference_pb2 import ModelMetadataResponse, RepositoryIndexResponse

COLUMNS = ("model", "version", "state", "inputs", "outputs")


def models(
    url: options.Url = options.DEFAULT_URL,
    state_dir: options.StateDir = options.DEFAULT_STATE_DIR,
    ca: options.Authority = None,
    cert: options.Certificate = None,
    key: options.Key = None,
    insecure: options.Insecure = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every model version of a server: its state, its inputs and outputs, and why it does not serve.

    Goes through the gateway of the deployment in the working directory if nothing else is said.
    """
    from service.client import ClientError

    try:
        with options.open_client(
            url, state_dir=state_dir, ca=ca, cert=cert, key=key, insecure=insecure, timeout=timeout
        ) as client:
            rows = [_describe_version(client, entry) for entry in client.list_models()]
    except ClientError as error:
        typer.echo(f"sluice models: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(rows, indent=2) if as_json else format_versions(rows))


def _describe_version(client: "Client", entry: "RepositoryIndexResponse.ModelIndex") -> dict[str, object]:
    row: dict[str, object] = {"name": entry.name, "version": entry.version, "state": entry.state}
    if entry.state == "READY":
        metadata = client.describe_model(entry.name, entry.version)
        return row | {"inputs": _list_tensors(metadata.inputs), "outputs": _list_tensors(metadata.outputs)}
    return row | {"reason": entry.reason}


def _list_tensors(tensors: "list[ModelMetadataResponse.TensorMetadata]") -> list[dict[str, object]]:
    return [{"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} for tensor in tensors]


def format_versions(rows: list[dict[str, object]]) -> str:
    """A table of the versions; below it, why those that do not serve do not."""
    from service.commands.certs import format_table

    if not rows:
        return "no models"
    cells = [
        (row["name"], row["version"], row["state"], *(_format_tensors(row.get(side)) for side in ("inputs", "outputs")))
        for row in rows
    ]
    reasons = [f"{row['name']} {row['version']}: {row['reason']}" for row in rows if row.get("reason")]
    return "\n".join([*format_table([COLUMNS, *cells]), *([""] if reasons else []), *reasons])


def _format_tensors(tensors: list[dict[str, object]] | None) -> str:
    return ", ".join(f"{tensor['name']} {tensor['datatype']}{tensor['shape']}" for tensor in tensors or []) or "-"
