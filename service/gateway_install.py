"""Puts a gateway's configuration in place where no gateway runs."""

from collections.abc import Mapping
from pathlib import Path

from certs.files import replace_file
from service.applied_deployment import save_applied
from service.deployment import Deployment
from service.envoy_check import check
from service.gateway import render, render_weights
from service.watch_limit import check_watches


def install(deployment: Deployment, state_folder: Path, envoy: Path, lasting: Deployment | None = None) -> None:
    """Render the gateway's configuration, have Envoy check it, then put it in place file by file, each in one step.

    Parameters
    ----------
    lasting
        The same with weights that were set for good since; None where there are none.

    Raises
    ------
    GatewayError
        Envoy refuses it, or may not watch its files; what was in place stays untouched.
    """
    weights = render_weights(lasting or deployment)
    files = {**render(deployment), **weights}
    check(files, envoy)
    check_watches(files)
    put_in_place(files, state_folder)
    save_applied(deployment, state_folder)


def put_in_place(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by their path in a folder, in their order, each in one step, unless they are as they should be."""
    for path, content in files.items():
        target = folder / path
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content)
