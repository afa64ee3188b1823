"""The weights that outlive the gateway: kept in the file that Envoy reads for them."""

import re
from pathlib import Path

import yaml

from certs.files import replace_file
from service.deployment import Deployment, DeploymentError, runtime_key
from service.gateway import RUNTIME_FILE, render_weights


def apply_lasting_weights(deployment: Deployment, state_folder: Path) -> Deployment:
    """The deployment with the weights of the file, for each model that has the same versions there.

    A model that gained or lost a version since keeps what the deployment says: nobody has weighed those together.
    """
    layer = _read_layer(state_folder)
    for model, versions in deployment.models.items():
        keys = {runtime_key(model, number): number for number in versions}
        pattern = re.compile(re.escape(runtime_key(model, 0).removesuffix("0")) + r"\d+")
        if keys.keys() == set(filter(pattern.fullmatch, layer)):
            try:
                deployment = deployment.with_weights(model, {number: layer[key] for key, number in keys.items()})
            except DeploymentError:
                continue
    return deployment


def save_weights(deployment: Deployment, state_folder: Path) -> None:
    """Write the weights of all models; a running Envoy takes them at once, but for those that its admin was given."""
    for path, content in render_weights(deployment).items():
        replace_file(state_folder / path, content)


def _read_layer(state_folder: Path) -> dict[str, int]:
    try:
        layer = yaml.safe_load((state_folder / RUNTIME_FILE).read_bytes())["resources"][0]["layer"]
    except (FileNotFoundError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return {}
    return layer if isinstance(layer, dict) else {}
