"""Renders the gateway's configuration from a deployment."""

import functools
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2
import yaml
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from certs.identities import AUTHORITIES, GATEWAY_CA
from service.deployment import SHADOW_PREFIX, WEIGHTS_PREFIX, Deployment, cluster_name, runtime_key, runtime_prefix
from service.envoy_check import FOLDER, SECRETS
from service.gateway_access import SERVER_METHODS, describe_rules, describe_tokens, list_key_servers, list_operators
from service.headers import KEY_HEADER, PIN_HEADER, TOKEN_HEADER, VERSION_HEADER
from service.limit_filters import LIMITS_CLUSTER, describe_filters, list_max_calls
from service.pb import open_inference_pb2
from service.rendered_routing import (
    describe_key,
    describe_shadow,
    has_failover,
    list_id_fields,
    list_localities,
    list_objects,
    list_shadow_clusters,
)

SERVICE_NAME = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
RUNTIME_FILE = f"{FOLDER}/runtime.yaml"
# Relative to the state folder, in which Envoy runs: the path of a socket may have 107 bytes at most.
ADMIN_SOCKET = "run/admin.sock"
SERVICE_CLUSTER = "service"
# gRPC's prefix of a message, and room for the service to refuse a message that is only a little too large by itself.
BUFFER_MARGIN_BYTES = 65536
# What a version gets at a time, unless its model says less: enough to notice a client that never ends.
MAX_CALLS = 16384
# Of a file's digest.
VERSION_DIGITS = 16
# Of the filter state of each call: there once its message has been read, when its route is chosen again.
READ_OBJECT = "sluice.route_chosen_by_model"
# By the fields that name the model and its version in their requests.
SELECTORS = (
    {"model": "model_name", "version": "model_version", "methods": ("ModelInfer", "ModelStreamInfer")},
    {
        "model": "name",
        "version": "version",
        "methods": ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    },
)
_SHIFT = rf"({re.escape(WEIGHTS_PREFIX)}|{re.escape(SHADOW_PREFIX)})\.[A-Za-z0-9_.%@-]+=[0-9]*"
SHIFT_PATTERN = rf"/runtime_modify\?{_SHIFT}(&{_SHIFT})*"
OPERATOR_PATHS = ("/clusters", "/listeners", "/ready", "/runtime", "/stats", "/stats/prometheus")
# Installed, the templates lie inside the package; in a checkout, beside it.
TEMPLATE_FOLDERS = (Path(__file__).parent / "envoy", Path(__file__).parent.parent / "envoy")


def render(deployment: Deployment) -> dict[str, bytes]:
    """The gateway's files by their path in the state folder, in the order in which they are put in place.

    What is referred to comes before what refers to it, so that a running Envoy never sees a route to nowhere.
    """
    first = {"descriptors.pb": describe_service(), **_render_secrets(deployment.certificates, deployment.client_crl)}
    last = {
        **_render_clusters(deployment),
        "routes.yaml": _render_routes(deployment),
        "listeners.yaml": _render_listeners(deployment),
        "bootstrap.yaml": _fill("bootstrap", admin_socket=ADMIN_SOCKET, fleet=None),
    }
    return {**_place(first), **render_weights(deployment), **_place(last)}


def render_weights(deployment: Deployment) -> dict[str, bytes]:
    """The one of those files that holds the weights that last."""
    return {RUNTIME_FILE: render_runtime({model: deployment.weights(model) for model in deployment.models})}


def render_runtime(weights: Mapping[str, Mapping[int, int]]) -> bytes:
    """The file of weights that last, by model and version number."""
    layer = {
        runtime_key(model, number): weight for model, versions in weights.items() for number, weight in versions.items()
    }
    return _fill_resources("runtime", weights=layer)


def render_member(fleet: object, certificates: Path, client_crl: Path | None) -> dict[str, bytes]:
    """The files of a gateway that asks a control plane for the rest: how to reach that, and where its keys are."""
    bootstrap = _fill("bootstrap", admin_socket=ADMIN_SOCKET, fleet=fleet)
    return _place({**_render_secrets(certificates, client_crl), "bootstrap.yaml": bootstrap})


def render_resources(template: str, **values: object) -> bytes:
    """A file of resources from a template, for others than a gateway."""
    return _fill_resources(template, **values)


def describe_service() -> bytes:
    """The descriptors by which Envoy reads the model's name out of a message, as a serialized FileDescriptorSet."""
    descriptors = FileDescriptorSet()
    for file in _order_files(open_inference_pb2.DESCRIPTOR):
        file.CopyToProto(descriptors.file.add())
    return descriptors.SerializeToString()


def _order_files(file: FileDescriptor) -> list[FileDescriptor]:
    """A file behind what it imports: Envoy's parser looks nothing up that comes later."""
    imported = {each.name: each for dependency in file.dependencies for each in _order_files(dependency)}
    return [*imported.values(), file]


def _place(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{FOLDER}/{path}": content for path, content in files.items()}


def _fill(template: str, **values: object) -> bytes:
    return _templates().get_template(f"{template}.yaml").render(values).encode() + b"\n"


def _fill_resources(template: str, **values: object) -> bytes:
    """A file of resources with its own digest as version, by which Envoy's statistics say what it has taken."""
    content = _fill(template, **values)
    return f"version_info: {hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]}\n".encode() + content


@functools.cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDERS), undefined=jinja2.StrictUndefined, autoescape=False
    )
    templates.filters["toyaml"] = _format_yaml
    return templates


def _format_yaml(value: object) -> str:
    """As people read it; parts that are the same are written out, since anchors would have to be unique in a file."""
    dumper = type("PlainDumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    return yaml.dump(value, Dumper=dumper, sort_keys=False, width=sys.maxsize).rstrip()


def _render_secrets(certificates: Path, client_crl: Path | None) -> dict[str, bytes]:
    folder = str(certificates.resolve())
    lists = {GATEWAY_CA: client_crl and str(client_crl.resolve())}
    return {
        f"secrets/{name}.yaml": _fill_resources(
            "secrets", name=name, is_authority=name in AUTHORITIES, folder=folder, crl=lists.get(name)
        )
        for name in SECRETS
    }


def _render_clusters(deployment: Deployment) -> dict[str, bytes]:
    clusters = _list_clusters(deployment)
    files = {
        f"endpoints/{cluster['name']}.yaml": _fill_resources(
            "endpoints", cluster=cluster["name"], localities=list_localities(deployment, cluster["endpoints"])
        )
        for cluster in clusters
    }
    limit_service = None
    if deployment.limits is not None and (service := deployment.limits.service) is not None:
        path = f"endpoints/{LIMITS_CLUSTER}.yaml"
        files[path] = _fill_resources(
            "endpoints", cluster=LIMITS_CLUSTER, localities=list_localities(deployment, service.endpoints)
        )
        limit_service = {"name": LIMITS_CLUSTER, "path": f"{FOLDER}/{path}", "identity": service.identity}
    files["clusters.yaml"] = _fill_resources(
        "clusters",
        clusters=clusters,
        version_header=VERSION_HEADER,
        key_header=KEY_HEADER,
        service_identity=deployment.service_identity,
        admin_socket=ADMIN_SOCKET,
        key_servers=list_key_servers(deployment.access) if deployment.access else [],
        limit_service=limit_service,
    )
    return files


def _render_routes(deployment: Deployment) -> bytes:
    return _fill_resources(
        "routes",
        models=_list_models(deployment),
        tells_model=deployment.limits is not None,
        selectors=SELECTORS,
        infer_methods=SELECTORS[0]["methods"],
        read_object=READ_OBJECT,
        pin_header=PIN_HEADER,
        has_failover=has_failover(deployment),
        server_methods=SERVER_METHODS if deployment.access else (),
        path_prefix=f"/{SERVICE_NAME}/",
        buffer_limit_bytes=deployment.max_message_bytes + BUFFER_MARGIN_BYTES,
    )


def _render_listeners(deployment: Deployment) -> bytes:
    return _fill_resources(
        "listeners",
        gateway=deployment.gateway,
        operator=deployment.operator,
        readers=(*deployment.operators, *list_operators(deployment.access, "admin")),
        weighers=(*deployment.operators, *list_operators(deployment.access, "traffic")),
        operator_paths=OPERATOR_PATHS,
        shift_pattern=SHIFT_PATTERN,
        selectors=SELECTORS,
        read_object=READ_OBJECT,
        service_name=SERVICE_NAME,
        version_header=VERSION_HEADER,
        id_fields=list_id_fields(deployment),
        objects=list_objects(deployment),
        token_header=TOKEN_HEADER,
        server_methods=SERVER_METHODS,
        access=deployment.access,
        token_filter=describe_tokens(deployment.access) if deployment.access else {},
        rule_filters=describe_rules(deployment.access) if deployment.access else [],
        max_message_bytes=deployment.max_message_bytes,
        max_headers_kib=deployment.max_headers_kib,
        limits=describe_filters(deployment),
    )


def _list_clusters(deployment: Deployment) -> list[dict[str, object]]:
    """Every cluster with the name of its file, its servers, and what it asks their health service for."""
    service = {"name": SERVICE_CLUSTER, "version": None, "health_name": "", "endpoints": deployment.endpoints}
    clusters = [{**service, "max_calls": MAX_CALLS}]
    max_calls = list_max_calls(deployment)
    clusters += [
        {
            "name": cluster_name(model, number),
            "version": number,
            "health_name": f"{model}/{number}",
            "endpoints": deployment.servers(model, number),
            "is_hashed": deployment.routing_of(model).is_hashed,
            "max_calls": max_calls.get(model, MAX_CALLS),
        }
        for model, versions in deployment.models.items()
        for number in versions
    ]
    clusters += list_shadow_clusters(deployment)
    usual = {"is_hashed": False, "is_shadow": False}
    return [
        {**usual, **cluster, "endpoints_path": f"{FOLDER}/endpoints/{cluster['name']}.yaml"} for cluster in clusters
    ]


def _list_models(deployment: Deployment) -> list[dict[str, object]]:
    return [
        {
            "name": model,
            "runtime_prefix": runtime_prefix(model),
            "key": describe_key(deployment.routing_of(model).key),
            "key_header": KEY_HEADER if deployment.routing_of(model).idempotency else "",
            "keeps_sequences": deployment.routing_of(model).keeps_sequences,
            "shadow": describe_shadow(model, deployment.routing_of(model)),
            "versions": [
                {"number": number, "cluster": cluster_name(model, number), "weight": version.weight}
                for number, version in versions.items()
            ],
        }
        for model, versions in deployment.models.items()
    ]
