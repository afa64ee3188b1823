"""Rendered files as the resources of the discovery protocol: the same data, with each other named instead of a file."""

import base64
import functools
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.any_pb2 import Any as AnyMessage

from service.envoy_check import FOLDER, LOADER
from service.gateway import VERSION_DIGITS
from service.xds_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME, TYPE_KEY, XdsError, XdsTypes

# What is referred to comes before what refers to it.
SEND_ORDER = (CLUSTER, ENDPOINTS, RUNTIME, ROUTES, LISTENER)
# Kept on each gateway's own disk: keys do not travel.
LOCAL_FOLDER = f"{FOLDER}/secrets/"
CACHED_FILES = 4096
# Who vouches for an issuer's server; secrets have it too, which stay where they are.
AUTHORITY = "trusted_ca"


@dataclass(frozen=True)
class Resource:
    """One resource as it is sent, and the digest of what it says."""

    message: AnyMessage
    digest: str


# By type, then by name.
Resources = Mapping[str, Mapping[str, Resource]]


class ResourceReader:
    """Makes resources of rendered files; remembers those of files that it has met."""

    def __init__(self) -> None:
        # Threads take turns: definitions are loaded on the way.
        self._lock = threading.Lock()
        self._types = XdsTypes()
        self._read_file = functools.lru_cache(CACHED_FILES)(self._read_new_file)

    def read(self, files: Mapping[str, bytes]) -> Resources:
        """The resources of a gateway's files, those of the bootstrap and the secrets left out.

        Raises
        ------
        XdsError
            The package xds-protos lacks something that they say, or a file that they name cannot be read.
        """
        resources: dict[str, dict[str, Resource]] = {kind: {} for kind in SEND_ORDER}
        descriptors = files.get(f"{FOLDER}/descriptors.pb", b"")
        with self._lock:
            for path, content in files.items():
                if path.endswith(".yaml") and not path.startswith(LOCAL_FOLDER) and path != f"{FOLDER}/bootstrap.yaml":
                    # What another file says may change while this one stays as it is.
                    read = self._read_new_file if AUTHORITY.encode() in content else self._read_file
                    for kind, name, resource in read(content, descriptors):
                        resources[kind][name] = resource
        return resources

    def _read_new_file(self, content: bytes, descriptors: bytes) -> list[tuple[str, str, Resource]]:
        found = yaml.load(content, Loader=LOADER)["resources"] or ()
        return [self._make(_link(data, descriptors)) for data in found]

    def _make(self, data: dict[str, Any]) -> tuple[str, str, Resource]:
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        name = data.get("cluster_name") or data["name"]
        return data[TYPE_KEY], name, Resource(self._types.pack(data), digest)


def find_version(resources: Iterable[tuple[str, Resource]]) -> str:
    """The version of some resources with their names: it differs where any of them does, and in nothing else."""
    text = "\n".join(f"{name} {resource.digest}" for name, resource in sorted(resources, key=lambda pair: pair[0]))
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]


def _link(node: Any, descriptors: bytes) -> Any:
    """The same data with what lies in other files asked of the control plane, or put in place."""
    if isinstance(node, list):
        return [_link(item, descriptors) for item in node]
    if not isinstance(node, dict):
        return node
    linked = {}
    for key, value in node.items():
        if key == "path_config_source" and not value["path"].startswith(LOCAL_FOLDER):
            linked["ads"] = {}
        elif key == AUTHORITY and "filename" in value:
            linked[key] = {"inline_string": _read_authority(Path(value["filename"]))}
        elif key == "descriptor_set":
            linked[key] = {"inline_bytes": base64.b64encode(descriptors).decode()}
        else:
            linked[key] = _link(value, descriptors)
    return linked


def _read_authority(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise XdsError(f"{AUTHORITY} {path}: {error}") from None
