"""Envoy's official messages, from the package xds-protos, made of the data that rendered files hold."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

TYPE_KEY = "@type"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
RUNTIME = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
# Fields that Envoy has and the package does not know yet: their numbers, all of them booleans. The package follows
# gRPC, which takes Envoy's definitions over years later.
NEWER_FIELDS = {
    "envoy.config.route.v3.RetryPolicy": {"refresh_cluster_on_retry": 14},
    "envoy.extensions.filters.http.set_filter_state.v3.Config": {"clear_route_cache": 2},
}


class XdsError(Exception):
    """A resource that cannot be made; the text says why."""


def find_services() -> Any:
    """The module with the discovery service's stubs and servicers; XdsError where xds-protos is not installed."""
    try:
        return importlib.import_module("envoy.service.discovery.v3.ads_pb2_grpc")
    except ModuleNotFoundError:
        raise XdsError(
            "the control plane needs Envoy's types: pip install 'sluice-serving[control]', or xds-protos"
        ) from None


class XdsTypes:
    """Makes messages; loads the definitions that it meets, once each.

    They lie in a pool of their own, since those of NEWER_FIELDS differ from the package's.
    """

    def __init__(self) -> None:
        self._pool = DescriptorPool()
        self._packages: set[str] = set()
        self._files: set[str] = set()

    def pack(self, data: dict[str, Any]) -> AnyMessage:
        """The message of one resource, which names its type as `@type`; XdsError for a field that is not known."""
        for package in _list_packages(data):
            self._load_package(package)
        message = AnyMessage()
        try:
            json_format.ParseDict(data, message, descriptor_pool=self._pool)
        except json_format.ParseError as error:
            raise XdsError(f"{data[TYPE_KEY]}: {error}") from None
        # Equal resources must be equal bytes, since their digest is their version.
        return message

    def _load_package(self, package: str) -> None:
        """Envoy's protobuf packages are folders of the same name, so that a type says where it is defined."""
        if package in self._packages:
            return
        self._packages.add(package)
        try:
            folder = importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise XdsError(f"xds-protos has no {package}: {error}") from None
        for module in pkgutil.iter_modules(folder.__path__, f"{package}."):
            if module.name.endswith("_pb2"):
                self._load_file(importlib.import_module(module.name).DESCRIPTOR)

    def _load_file(self, file: FileDescriptor) -> None:
        if file.name in self._files:
            return
        self._files.add(file.name)
        for dependency in file.dependencies:
            self._load_file(dependency)
        self._pool.Add(_add_newer_fields(file))


def _list_packages(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _list_packages(item)
    elif isinstance(node, dict):
        if TYPE_KEY in node:
            yield node[TYPE_KEY].rpartition("/")[2].rpartition(".")[0]
        for item in node.values():
            yield from _list_packages(item)


def _add_newer_fields(file: FileDescriptor) -> FileDescriptorProto:
    definition = FileDescriptorProto()
    file.CopyToProto(definition)
    for message in definition.message_type:
        for name, number in NEWER_FIELDS.get(f"{file.package}.{message.name}", {}).items():
            if all(field.name != name for field in message.field):
                kinds = {"type": FieldDescriptorProto.TYPE_BOOL, "label": FieldDescriptorProto.LABEL_OPTIONAL}
                message.field.add(name=name, number=number, **kinds)
    return definition
