"""The deployment that was last put in place in a state folder, kept beside what was rendered from it."""

from pathlib import Path

from certs.files import replace_file
from service.deployment import Deployment, DeploymentError
from service.deployment_file import format_deployment, read_deployment
from service.envoy_check import FOLDER
from service.lasting_weights import apply_lasting_weights

FILE = f"{FOLDER}/deployment.yaml"


def read_declared(state_folder: Path) -> Deployment:
    """What was put in place, as it was declared; DeploymentFileError when nothing was."""
    return read_deployment(state_folder / FILE)


def read_applied(state_folder: Path) -> Deployment:
    """What is in place, with the weights that have been set for good since; DeploymentFileError when nothing is."""
    return apply_lasting_weights(read_declared(state_folder), state_folder)


def keep_lasting_weights(declared: Deployment, state_folder: Path) -> Deployment:
    """A deployment with the weights that last, for each model that is declared as it was when that was put in place."""
    try:
        before = read_declared(state_folder)
    except DeploymentError:
        return declared
    lasting = apply_lasting_weights(declared, state_folder)
    for model in declared.models:
        if before.models.get(model) == declared.models[model]:
            declared = declared.with_weights(model, lasting.weights(model))
    return declared


def save_applied(deployment: Deployment, state_folder: Path) -> None:
    """Note what is in place from now on."""
    replace_file(state_folder / FILE, format_deployment(deployment).encode())
