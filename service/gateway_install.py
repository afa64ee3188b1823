"""Puts a gateway's configuration in place where no gateway runs."""

from pathlib import Path

from certs.files import replace_file
from service.applied_deployment import save_applied
from service.deployment import Deployment
from service.envoy_check import check
from service.gateway import render


def install(deployment: Deployment, state_folder: Path, envoy: Path) -> None:
    """Render the gateway's configuration, have Envoy check it, then put it in place file by file, each in one step.

    Raises
    ------
    GatewayError
        Envoy refuses it; what was in place stays untouched.
    """
    files = render(deployment)
    check(files, envoy)
    for path, content in files.items():
        target = state_folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)
    save_applied(deployment, state_folder)
