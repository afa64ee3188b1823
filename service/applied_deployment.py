"""The deployment that a state folder's gateway was last rendered from, kept beside what was rendered."""

from pathlib import Path

from certs.files import replace_file
from service.deployment import Deployment
from service.deployment_file import format_deployment, read_deployment
from service.envoy_check import FOLDER
from service.lasting_weights import apply_lasting_weights

FILE = f"{FOLDER}/deployment.yaml"


def read_applied(state_folder: Path) -> Deployment:
    """What is in place, with the weights that last; DeploymentFileError when nothing is."""
    return apply_lasting_weights(read_deployment(state_folder / FILE), state_folder)


def save_applied(deployment: Deployment, state_folder: Path) -> None:
    """Note what is in place from now on."""
    replace_file(state_folder / FILE, format_deployment(deployment).encode())
