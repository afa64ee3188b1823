"""Reads who may do what out of a deployment file, for the service, to which the rest of that file is nothing."""

from pathlib import Path

from service.access_policy import AccessPolicy
from service.access_section import SECTION, build_access
from service.deployment import DeploymentError
from service.deployment_file import DeploymentFileError, check_document, load_schema
from service.yaml_document import YamlError, read_yaml


def read_access(path: Path) -> AccessPolicy | None:
    """The policy of a deployment file without the issuers' keys; None when there is no section `access`.

    Raises
    ------
    DeploymentFileError
        It cannot be read, or that section says what cannot be.
    """
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise DeploymentFileError(f"{path}: {error}") from None
    whole = load_schema()
    section = {SECTION: whole["properties"][SECTION]}
    check_document(document, str(path), {**whole, "required": [], "additionalProperties": True, "properties": section})
    if SECTION not in document.data:
        return None
    try:
        return build_access(document.data[SECTION], None)
    except DeploymentError as error:
        raise DeploymentFileError(f"{path}:{document.find_line(error.path)}: {error}") from None
