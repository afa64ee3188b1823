"""Where a running gateway does not go by the files that it was given."""

from pathlib import Path

from service.admin import AdminSocket
from service.applied_deployment import read_applied, read_declared
from service.deployment import runtime_key, shadow_key
from service.gateway import ADMIN_SOCKET, render, render_weights
from service.running_gateway import RunningGateway


def find_drift(state_folder: Path) -> list[str]:
    """Files that were changed by hand, or that Envoy has not taken, and weights that the admin was given; a line each.

    Raises
    ------
    DeploymentFileError
        What it was rendered from is not known.
    AdminError
        It went away meanwhile.
    """
    applied = read_applied(state_folder)
    files = {**render(read_declared(state_folder)), **render_weights(applied)}
    lines = [
        f"{path}: not what was rendered"
        for path, content in files.items()
        if not (state_folder / path).exists() or (state_folder / path).read_bytes() != content
    ]
    gateway = RunningGateway(AdminSocket(state_folder / ADMIN_SOCKET))
    if not gateway.is_up():
        return [*lines, "no gateway is running"]
    lines += [f"{path}: Envoy goes by another version" for path in gateway.find_untaken(files)]
    names = {
        runtime_key(model, number): f"models.{model}.versions.{number}.weight"
        for model, versions in applied.models.items()
        for number in versions
    }
    names |= {shadow_key(model): f"models.{model}.shadow.percent" for model in applied.models}
    lines += [
        f"{names.get(key, key)}: {value}, which the admin was given and holds until Envoy ends"
        for key, value in sorted(gateway.read_overrides().items())
    ]
    return lines
