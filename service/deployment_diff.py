"""What changes from one deployment to another, field by field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.deployment import Deployment
from service.deployment_file import describe_deployment


@dataclass(frozen=True)
class Difference:
    """One field, or a whole part of a deployment, that is not the same; None where it is not there.

    Attributes
    ----------
    field
        Where it stands in a deployment file.
    """

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.field}: added: {_format(self.new)}"
        if self.new is None:
            return f"{self.field}: removed: {_format(self.old)}"
        return f"{self.field}: {_format(self.old)} -> {_format(self.new)}"


def compare_deployments(old: Deployment, new: Deployment) -> list[Difference]:
    """What the new deployment changes; nothing when both are the same."""
    return list(_compare(describe_deployment(old), describe_deployment(new), ""))


def _compare(old: Any, new: Any, field: str) -> Iterator[Difference]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield Difference(field, old, new)
        return
    for key in {**old, **new}:
        yield from _compare(old.get(key), new.get(key), f"{field}.{key}" if field else str(key))


def _format(value: Any) -> str:
    """In one line, as YAML would have it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_format(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_format, value)) + "]"
    return str(value)
