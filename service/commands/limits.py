"""`sluice limits`: the service that counts calls for all gateways."""

from pathlib import Path
from typing import Annotated

import typer

limits = typer.Typer(no_args_is_help=True, help="Count calls against the global limits of a deployment file.")

DEFAULT_LISTEN = "127.0.0.1:8100"


@limits.callback()
def _limits() -> None:
    """Keep the command's name, which typer leaves out where there is only one."""


@limits.command()
def serve(
    file: Annotated[Path, typer.Argument(help="The deployment file; read again when it changes.", metavar="FILE")],
    listen: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Where gateways reach it.")] = DEFAULT_LISTEN,
    redis: Annotated[
        str | None,
        typer.Option(
            envvar="SLUICE_LIMITS_REDIS",
            metavar="URL",
            help="Redis in which counts are kept, and shared with other such services, as redis://host:6379/0, "
            "rediss://... or unix://path. Without it, they are kept in memory.",
        ),
    ] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder with limits.pem, limits.key and internal-ca.pem; else the file's own.")
    ] = None,
    allowed_client: Annotated[
        list[str] | None,
        typer.Option(metavar="URI", help="URI name of a gateway's certificate that may ask; else the gateway's own."),
    ] = None,
    max_buckets: Annotated[int, typer.Option(help="How many counts are kept in memory.", min=1)] = 1_000_000,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of the same address for /metrics, plain HTTP; without, off.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="json or text.")] = "text",
) -> None:
    """Answer Envoy's rate-limit protocol by the global limits of a deployment file, until SIGTERM."""
    from certs.identities import GATEWAY_URI
    from service.credentials import CertificateError
    from service.deployment import DeploymentError, Endpoint
    from service.limit_server import LimitServerError, LimitServerPlan
    from service.limit_server import serve as run_server
    from service.logs import FORMATS, configure_logs
    from service.redis_buckets import RedisError

    if log_format not in FORMATS:
        raise typer.BadParameter(f"expected {' or '.join(FORMATS)}, given {log_format!r}", param_hint="--log-format")
    configure_logs("info", log_format)
    try:
        plan = LimitServerPlan(
            file=file,
            listen=Endpoint.parse(listen, ("listen",)),
            certificates=certificates,
            redis_url=redis,
            gateways=tuple(allowed_client or (GATEWAY_URI,)),
            max_buckets=max_buckets,
            metrics_port=metrics_port,
        )
        run_server(plan, typer.echo)
    except (LimitServerError, DeploymentError, RedisError, CertificateError, OSError) as error:
        typer.echo(f"sluice limits serve: {error}", err=True)
        raise typer.Exit(1) from None
