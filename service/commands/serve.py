"""`sluice serve`: the server alone, without the gateway."""

import typer

from service.commands.settings_options import takes_settings
from service.settings import Settings


@takes_settings
def serve(settings: Settings) -> None:
    """Serve a model repository over gRPC, without the gateway.

    Logs one line when ready; SIGTERM drains: no new requests, those that were accepted are answered, exit status 0.
    """
    from service.allocator import tune_allocator

    tune_allocator()

    from kernels.runtime import RuntimeLibraryError
    from service.credentials import CertificateError
    from service.logs import configure_logs
    from service.model_folders import ModelFolderError
    from service.server import ServerError
    from service.server import serve as run_server

    configure_logs(settings.log_level, settings.log_format)
    try:
        raise typer.Exit(run_server(settings))
    except (ServerError, CertificateError, RuntimeLibraryError, ModelFolderError) as error:
        typer.echo(f"sluice: {error}", err=True)
        raise typer.Exit(1) from None
