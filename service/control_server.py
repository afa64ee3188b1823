"""The control plane's server: Envoy's discovery service over mTLS, for those whom the deployment names."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import grpc
from envoy.service.discovery.v3.ads_pb2_grpc import (
    AggregatedDiscoveryServiceServicer,
    add_AggregatedDiscoveryServiceServicer_to_server,
)
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from certs.identities import GATEWAY_CA, INTERNAL_CA
from service.control_client import ControlError
from service.deployment import DeploymentError, Endpoint
from service.fleet import Fleet
from service.follower import CLIENT, GATEWAY, FollowerError, Introduction, Place
from service.peers import SUBJECT_NAMES
from service.xds_types import XdsError

log = logging.getLogger(__name__)

IDENTITY = "control"
# Requests name what is asked for; of a hundred models with ten versions that is less than a hundredth of this.
MOST_REQUEST_BYTES = 4 * 2**20
KEEPALIVE_MS = 10_000
# In the metadata by which a gateway says where it listens, if not where the deployment says.
PLACE_KEYS = ("gateway", "operator")


class DiscoveryServicer(AggregatedDiscoveryServiceServicer):
    """The aggregated discovery service, state of the world."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def StreamAggregatedResources(  # noqa: N802, the protocol's name
        self, requests: object, context: grpc.aio.ServicerContext
    ) -> None:
        """Serve one gateway or client until it goes."""
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        who = await self._introduce(first, context)

        async def send(answer: DiscoveryResponse) -> None:
            try:
                await context.write(answer)
            except Exception as error:  # grpcio has several for a stream that has ended
                raise FollowerError(f"{who.place.kind} {who.node} went away") from error

        try:
            follower = await self._fleet.join(who, send, asyncio.current_task().cancel)
        except XdsError as error:
            log.error("cannot be served", extra={"follower": who.node, "reason": str(error)})
            await context.abort(grpc.StatusCode.INTERNAL, "what is in force cannot be made for this place")
        try:
            request = first
            with contextlib.suppress(FollowerError):
                while request is not grpc.aio.EOF:
                    await follower.hear(request)
                    request = await context.read()
        finally:
            await self._fleet.leave(follower)

    async def _introduce(self, first: DiscoveryRequest, context: grpc.aio.ServicerContext) -> Introduction:
        """Who opens a stream, by its certificate; ends the call of one whom the deployment does not name."""
        control = self._fleet.deployment.control
        uris = [name.decode(errors="replace") for name in context.auth_context().get(SUBJECT_NAMES, ())]
        for kind, allowed in ((GATEWAY, control.gateways), (CLIENT, control.clients)):
            if named := [uri for uri in uris if uri in allowed]:
                try:
                    place = read_place(kind, first.node.metadata)
                except DeploymentError as error:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"node.metadata: {error}")
                return Introduction(first.node.id, named[0], context.peer(), place)
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            "control.gateways and control.clients of the deployment name nobody of this certificate",
        )
        raise AssertionError("abort returns to nobody")


def read_place(kind: str, metadata: Mapping[str, object]) -> Place:
    """Where a node says that it listens; DeploymentError for what is no endpoint."""
    if kind != GATEWAY:
        return Place(kind)
    said = {key: str(metadata[key]) for key in PLACE_KEYS if key in metadata}
    return Place(kind, **{key: Endpoint.parse(text, (key,)) for key, text in said.items()})


async def start_server(fleet: Fleet) -> grpc.aio.Server:
    """Serve a fleet where its deployment says; ControlError where that is not possible."""
    deployment = fleet.deployment
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MOST_REQUEST_BYTES)]
    # One that is gone without a word would otherwise be waited for at the next change.
    options += [("grpc.keepalive_time_ms", KEEPALIVE_MS), ("grpc.keepalive_timeout_ms", KEEPALIVE_MS)]
    # Gateways ping to find out a control plane that is gone; grpcio would take that for an attack and hang up.
    options += [("grpc.http2.max_ping_strikes", 0), ("grpc.keepalive_permit_without_calls", 1)]
    server = grpc.aio.server(options=options)
    add_AggregatedDiscoveryServiceServicer_to_server(DiscoveryServicer(fleet), server)
    try:
        credentials = follow_certificates(deployment.certificates)
    except OSError as error:
        raise ControlError(f"certificates: {error}; sluice certs --renew makes them") from None
    try:
        server.add_secure_port(str(deployment.control.listen), credentials)
    except RuntimeError as error:
        raise ControlError(f"cannot listen on {deployment.control.listen}: {error}") from None
    await server.start()
    return server


def follow_certificates(folder: Path) -> grpc.ServerCredentials:
    """Credentials from the files of a folder, which are read for each handshake; who has no certificate fails in it.

    Gateways are vouched for by the inside's authority, clients by the gateway's.
    """

    def read() -> grpc.ServerCertificateConfiguration:
        pair = ((folder / f"{IDENTITY}.key").read_bytes(), (folder / f"{IDENTITY}.pem").read_bytes())
        authorities = b"".join((folder / f"{name}.pem").read_bytes() for name in (INTERNAL_CA, GATEWAY_CA))
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)

    def read_again() -> grpc.ServerCertificateConfiguration | None:
        try:
            return read()
        except OSError as error:
            log.error("certificates could not be read again", extra={"reason": str(error)})
            return None

    return grpc.dynamic_ssl_server_credentials(read(), read_again, require_client_authentication=True)
