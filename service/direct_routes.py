"""What gRPC clients go by that reach services without a gateway, rendered from a deployment."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from service.deployment import Deployment, Endpoint, Version, cluster_name
from service.envoy_check import FOLDER
from service.gateway import render_resources
from service.headers import PIN_HEADER

# In which a client's bootstrap file and the resources name where its certificates are.
PROVIDER = "sluice"
# How often clients look whether the files of their certificates are new.
REFRESH_INTERVAL = "10s"


def render_direct(deployment: Deployment, servers: Deployment) -> dict[str, bytes]:
    """The file of all resources for clients: the split of one deployment, and the servers of another that has more."""
    direct = deployment.control.direct if deployment.control else ()
    content = render_resources(
        "direct",
        models=[_describe_model(model, versions) for model, versions in _pick(deployment, direct)],
        clusters=[
            {"name": cluster_name(model, number), "endpoints": servers.servers(model, number)}
            for model, versions in _pick(servers, direct)
            for number in versions
        ],
        pin_header=PIN_HEADER,
        provider=PROVIDER,
        service_identity=deployment.service_identity,
    )
    return {f"{FOLDER}/direct.yaml": content}


def _pick(deployment: Deployment, models: Collection[str]) -> Iterator[tuple[str, Mapping[int, Version]]]:
    return ((model, versions) for model, versions in deployment.models.items() if model in models)


def _describe_model(model: str, versions: Mapping[int, Version]) -> dict[str, object]:
    shares = [
        {"number": number, "cluster": cluster_name(model, number), "weight": version.weight}
        for number, version in versions.items()
    ]
    return {"name": model, "versions": shares}


def describe_client(control: Endpoint, node: str, files: Mapping[str, Path]) -> str:
    """The bootstrap file of a gRPC client, which GRPC_XDS_BOOTSTRAP names.

    Parameters
    ----------
    files
        Paths of the client's `certificate` and `key`, and of the `authority` of control plane and services.
    """
    keys = {"certificate_file": "certificate", "private_key_file": "key", "ca_certificate_file": "authority"}
    config = {key: str(files[name].resolve()) for key, name in keys.items()} | {"refresh_interval": REFRESH_INTERVAL}
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": str(control),
                "channel_creds": [{"type": "tls", "config": config}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": node, "cluster": "sluice"},
        "certificate_providers": {PROVIDER: {"plugin_name": "file_watcher", "config": config}},
    }
    return json.dumps(bootstrap, indent=2)
