"""The deployment as operators write it: one YAML file, checked against deployment.schema.json."""

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from service.access_section import build_access, describe_access
from service.deployment import Deployment, DeploymentError, Endpoint, Version
from service.routing_fields import (
    build_localities,
    build_routing,
    describe_place,
    describe_routing,
    describe_server,
    read_address,
    read_place,
)
from service.yaml_document import YamlDocument, YamlError, read_yaml

SCHEMA = Path(__file__).with_name("deployment.schema.json")
# Longer values are not repeated whole in an error.
MOST_SHOWN = 80


class DeploymentFileError(DeploymentError):
    """A deployment file that cannot be used; the text has a line for each thing that is wrong: where, and why."""


@functools.cache
def load_schema() -> dict[str, Any]:
    """The JSON Schema of deployment files."""
    return json.loads(SCHEMA.read_text())


def read_deployment(path: Path) -> Deployment:
    """Read a deployment file; folders in it are relative to its own.

    Raises
    ------
    DeploymentFileError
        It cannot be read, or says what cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentFileError(f"{path}: {error}") from None
    return parse_deployment(text, str(path), path.parent)


def parse_deployment(text: str, name: str, folder: Path) -> Deployment:
    """As read_deployment does: a file's text, its name in errors, and the folder that paths are relative to."""
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise DeploymentFileError(f"{name}: {error}") from None
    check_document(document, name, load_schema())
    try:
        return _build_deployment(document.data, folder)
    except DeploymentError as error:
        raise DeploymentFileError(f"{name}:{document.find_line(error.path)}: {error}") from None


def check_document(document: YamlDocument, name: str, schema: Mapping[str, Any]) -> None:
    """Raise DeploymentFileError, with all that a schema does not allow of what a file of some name says."""
    if problems := list(_find_problems(document, schema)):
        raise DeploymentFileError("\n".join(f"{name}:{line}: {problem}" for line, problem in sorted(problems)))


def format_deployment(deployment: Deployment) -> str:
    """The file's text for a deployment; reading it gives the same."""
    return yaml.safe_dump(describe_deployment(deployment), sort_keys=False)


def describe_deployment(deployment: Deployment) -> dict[str, Any]:
    """The data of the file for a deployment: every field, with its default too."""
    return {
        "gateway": {
            "listen": str(deployment.gateway),
            "operator": str(deployment.operator),
            "operators": list(deployment.operators),
            "max_message_bytes": deployment.max_message_bytes,
            **describe_place(deployment.locality),
        },
        "certificates": str(deployment.certificates.resolve()),
        "service_identity": deployment.service_identity,
        "models": {
            model: {
                "versions": {number: _format_version(version, deployment) for number, version in versions.items()},
                **describe_routing(deployment.routing_of(model)),
            }
            for model, versions in deployment.models.items()
        },
        **({"access": describe_access(deployment.access)} if deployment.access else {}),
    }


def _format_version(version: Version, deployment: Deployment) -> dict[str, object]:
    endpoints = [describe_server(endpoint, deployment.locality_of(endpoint)) for endpoint in version.endpoints]
    return {"weight": version.weight, "endpoints": endpoints}


# ---- what a file may say


def _find_problems(document: YamlDocument, schema: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Line and text of everything that the schema does not allow."""
    validator = jsonschema.Draft202012Validator(schema)
    for error in validator.iter_errors(document.data):
        path = tuple(error.absolute_path)
        for inner, problem in _describe_error(error):
            where = (*path, *inner)
            field = ".".join(map(str, where))
            yield document.find_line(where), f"{field}: {problem}" if field else problem


def _describe_error(error: jsonschema.ValidationError) -> Iterable[tuple[tuple[str, ...], str]]:
    """What is wrong, and where below the value that the error is about."""
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [((), f"expected {key!r}, which is missing") for key in missing]
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        return [((key,), _describe_unknown(key, known)) for key in error.instance if key not in known]
    if error.validator == "pattern" and error.schema_path[-2] == "propertyNames":
        return [((error.instance,), f"expected {error.schema['title']}, given {_show(error.instance)}")]
    return [((), f"expected {error.schema['title']}, given {_show(error.instance)}")]


def _describe_unknown(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"unknown field; did you mean {close[0]!r}?" if close else f"unknown field; there are {', '.join(known)}"


def _show(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


# ---- what it means


def _build_deployment(data: Mapping[str, Any], folder: Path) -> Deployment:
    """The deployment of data that the schema allows."""
    gateway = _fill_defaults(data.get("gateway", {}), load_schema()["properties"]["gateway"]["properties"])
    whole = _fill_defaults(data, load_schema()["properties"])
    return Deployment(
        models={
            model: {
                int(number): _build_version(version, ("models", model, "versions", number))
                for number, version in declared["versions"].items()
            }
            for model, declared in data["models"].items()
        },
        gateway=Endpoint.parse(gateway["listen"], ("gateway", "listen")),
        operator=Endpoint.parse(gateway["operator"], ("gateway", "operator")),
        operators=tuple(gateway["operators"]),
        max_message_bytes=gateway["max_message_bytes"],
        certificates=folder / whole["certificates"],
        service_identity=whole["service_identity"],
        routing=build_routing(data["models"]),
        localities=build_localities(data["models"]),
        locality=read_place(gateway),
        access=build_access(data["access"], folder) if "access" in data else None,
    )


def _build_version(declared: Mapping[str, Any], path: tuple[str, ...]) -> Version:
    endpoints = [
        read_address(server, (*path, "endpoints", index)) for index, server in enumerate(declared["endpoints"])
    ]
    return Version(declared["weight"], tuple(endpoints))


def _fill_defaults(given: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about["default"] for key, about in fields.items() if "default" in about} | dict(given)
