"""Runs the limit service: its port with mTLS, its health, and its limits, which follow the deployment file."""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from envoy.service.ratelimit.v3 import rls_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health

from certs.identities import GATEWAY_URI
from service.credentials import CertificateFiles
from service.deployment import Deployment, DeploymentError, Endpoint
from service.deployment_file import read_deployment
from service.exposition import Family, format_labels, write_text
from service.grpcio_server import follow_files
from service.limit_buckets import DEFAULT_MAX_BUCKETS, Buckets, BucketsError, MemoryBuckets
from service.limit_service import LimitServicer
from service.limits import LimitService
from service.metrics_server import MetricsServer
from service.peers import GuardedServer
from service.redis_buckets import RedisBuckets

logger = logging.getLogger(__name__)

LOOK_S = 0.5
GRACE_S = 1.0
# A call waits for Redis a little less than the gateway waits for its answer.
REDIS_SHARE = 0.8
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class LimitServerError(Exception):
    """The limit service cannot be started; the text says why."""


@dataclass(frozen=True, kw_only=True)
class LimitServerPlan:
    """How a limit service runs.

    Attributes
    ----------
    file
        The deployment file; read again when it changes.
    listen
        Where gateways reach it.
    certificates
        Folder with its certificate; the deployment's own if None.
    redis_url
        Where counts are kept; in memory if None.
    gateways
        URI names of which a caller's certificate must carry one.
    max_buckets
        How many counts are kept in memory.
    """

    file: Path
    listen: Endpoint
    certificates: Path | None = None
    redis_url: str | None = None
    gateways: tuple[str, ...] = (GATEWAY_URI,)
    max_buckets: int = DEFAULT_MAX_BUCKETS
    metrics_port: int | None = None


@dataclass(frozen=True)
class ServerFiles:
    """The certificate files of a server, by the names of the settings that CertificateFiles reads."""

    tls_key: Path
    tls_cert: Path
    tls_client_ca: Path
    tls_client_crl: Path | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> "ServerFiles":
        """Those that `sluice certs` makes for this service."""
        return cls(folder / "limits.key", folder / "limits.pem", folder / "internal-ca.pem")


def serve(plan: LimitServerPlan, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `tell` is told where, once it does.

    Raises
    ------
    LimitServerError, DeploymentError, RedisError, CertificateError, OSError
        It cannot start.
    """
    asyncio.run(_Server(plan).run(tell))


class LimitMetrics:
    """What /metrics shows of the limits."""

    def __init__(self, servicer: LimitServicer) -> None:
        self._servicer = servicer

    def write(self) -> bytes:
        """Prometheus's text."""
        family = Family("sluice_limit_calls_total", "counter", "Calls by limit, and whether it let them through")
        for verdict, counts in (("let_through", self._servicer.let_through), ("refused", self._servicer.refused)):
            for name in self._servicer.rates:
                family.add(counts[name], format_labels({"limit": name, "verdict": verdict}))
        return write_text([family])


class _Server:
    def __init__(self, plan: LimitServerPlan) -> None:
        self._plan = plan
        self._stamp = _stamp(plan.file)
        self._deployment = read_deployment(plan.file)
        self._is_healthy = False

    async def run(self, tell: Callable[[str], None]) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        buckets = self._open_buckets()
        servicer, health = LimitServicer(buckets), aio_health.HealthServicer()
        servicer.rates = _list_rates(self._deployment)
        metrics = self._open_metrics(servicer)
        server = self._build(servicer, health)
        await self._look(servicer, health)
        await server.start()
        where = "memory" if self._plan.redis_url is None else "Redis"
        tell(f"limits    {self._plan.listen}  gRPC, mTLS; {len(servicer.rates)} global limits, counted in {where}")
        looking = asyncio.create_task(self._look_on(servicer, health))
        await stopped.wait()
        looking.cancel()
        await server.stop(GRACE_S)
        await buckets.close()
        if metrics is not None:
            metrics.stop()

    def _open_buckets(self) -> Buckets:
        if self._plan.redis_url is None:
            return MemoryBuckets(self._plan.max_buckets)
        limits = self._deployment.limits
        service = limits.service if limits and limits.service else LimitService(endpoints=(self._plan.listen,))
        return RedisBuckets(self._plan.redis_url, REDIS_SHARE * service.timeout_ms / 1000)

    def _open_metrics(self, servicer: LimitServicer) -> MetricsServer | None:
        if self._plan.metrics_port is None:
            return None
        metrics = MetricsServer(self._plan.listen.host, self._plan.metrics_port, LimitMetrics(servicer))
        metrics.start()
        return metrics

    def _build(self, servicer: LimitServicer, health: aio_health.HealthServicer) -> grpc.aio.Server:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 1024),
            # A gateway pings every second to notice a server that hangs.
            ("grpc.http2.max_ping_strikes", 0),
        ]
        server = grpc.aio.server(options=options)
        guarded = GuardedServer(server, self._plan.gateways)
        rls_pb2_grpc.add_RateLimitServiceServicer_to_server(servicer, guarded)
        health_pb2_grpc.add_HealthServicer_to_server(health, guarded)
        files = ServerFiles.of_folder(self._plan.certificates or self._deployment.certificates)
        credentials = follow_files(CertificateFiles(files))
        try:
            server.add_secure_port(str(self._plan.listen), credentials)
        except RuntimeError as error:
            raise LimitServerError(f"cannot listen on {self._plan.listen}: {error}") from error
        return server

    async def _look_on(self, servicer: LimitServicer, health: aio_health.HealthServicer) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look(servicer, health)

    async def _look(self, servicer: LimitServicer, health: aio_health.HealthServicer) -> None:
        """Be healthy while the counts can be reached, and take over what the file says now."""
        try:
            await servicer.check()
            is_healthy = True
        except BucketsError as error:
            is_healthy = False
            if self._is_healthy:
                logger.error("counts cannot be reached", extra={"reason": str(error)})
        self._is_healthy = is_healthy
        await health.set("", SERVING if is_healthy else NOT_SERVING)
        self._refresh(servicer)

    def _refresh(self, servicer: LimitServicer) -> None:
        try:
            if (stamp := _stamp(self._plan.file)) == self._stamp:
                return
            self._stamp = stamp
            servicer.rates = _list_rates(read_deployment(self._plan.file))
        except (OSError, DeploymentError) as error:
            logger.error("limits stay as they were", extra={"reason": str(error)})
            return
        logger.info("limits read again", extra={"limits": list(servicer.rates)})


def _list_rates(deployment: Deployment) -> dict:
    return {rate.name: rate for rate in deployment.limits.shared} if deployment.limits else {}


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
