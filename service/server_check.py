"""Asks servers by gRPC's health protocol whether they serve the versions that are to get traffic."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from certs.identities import INTERNAL_CA
from service.deployment import Deployment, Endpoint, Version

IDENTITY = "control-upstream"
TIMEOUT_S = 5.0

# A model and the number of a version.
Name = tuple[str, int]


async def find_unserved(old: Deployment, new: Deployment) -> list[str]:
    """Versions that are to get traffic, got none before, and have no healthy server; a line for each."""
    before = _list_weighed(old)
    come = {name: version for name, version in _list_weighed(new).items() if name not in before}
    asked: dict[Endpoint, list[Name]] = {}
    for name, version in come.items():
        for endpoint in version.endpoints:
            asked.setdefault(endpoint, []).append(name)
    answers = await asyncio.gather(*(_ask(server, names, new.certificates) for server, names in asked.items()))
    served = {name for names in answers for name in names}
    return [
        f"model {model!r} version {number}: none of its servers is healthy"
        for model, number in sorted(come.keys() - served)
    ]


def _list_weighed(deployment: Deployment) -> dict[Name, Version]:
    return {
        (model, number): version
        for model, versions in deployment.models.items()
        for number, version in versions.items()
        if version.weight
    }


async def _ask(endpoint: Endpoint, names: Sequence[Name], certificates: Path) -> list[Name]:
    """Those of some versions that a server is healthy for."""
    files = (f"{INTERNAL_CA}.pem", f"{IDENTITY}.key", f"{IDENTITY}.pem")
    credentials = grpc.ssl_channel_credentials(*((certificates / name).read_bytes() for name in files))
    # Its certificate is for localhost, whichever address it listens on.
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.secure_channel(str(endpoint), credentials, options) as channel:
        stub = HealthStub(channel)
        healthy = await asyncio.gather(*(_is_healthy(stub, f"{model}/{number}") for model, number in names))
    return [name for name, is_healthy in zip(names, healthy, strict=True) if is_healthy]


async def _is_healthy(stub: HealthStub, name: str) -> bool:
    try:
        answer = await stub.Check(HealthCheckRequest(service=name), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        # A server that tells its gateways alone is there, and no more can be known.
        return error.code() is grpc.StatusCode.PERMISSION_DENIED
    return answer.status == HealthCheckResponse.SERVING
