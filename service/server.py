"""One serving process: the engine, the model repository and a transport over them, from start to drain."""

import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from kernels.engine import Engine
from kernels.runtime import configure_runtime, runtime_version, start_runtime
from service.allocator import AllocatorError
from service.cache_metrics import describe_cache
from service.callers import Callers
from service.deployment import DeploymentError
from service.dormant_models import DormantConfigs
from service.expiry import ExpiryWatch
from service.gpu_metrics import GpuMetrics
from service.gpus import keep_library_open
from service.guard import Guard
from service.health import HealthBoard
from service.keyed_metrics import describe_keyed
from service.lazy_lifecycle import LazyLifecycle
from service.lazy_loading import LazyLoading
from service.log_settings import LogSettings
from service.machine_metrics import MachineMetrics
from service.memory_budget import MemoryBudget
from service.metrics import Metrics
from service.metrics_server import MetricsServer
from service.model_control import ModelControl
from service.model_metrics import describe_loads, describe_models
from service.observing import Observed
from service.permissions import Permissions
from service.policy_watch import PolicyWatch, read_policy
from service.repository import Repository
from service.repository_poll import RepositoryPoller
from service.server_events import ServerEvent, ServerEvents
from service.services import Services
from service.setting_checks import UNIX_PREFIX
from service.settings import Settings
from service.statistics import read_statistics
from service.tracer import Tracer
from service.transport_metrics import describe_transport

# What a call that came in while the process was stopping may still take after the drain, in seconds.
CLOSING_GRACE_S = 1.0
# In load_models.
EVERY_MODEL = "*"

logger = logging.getLogger(__name__)


class ServerError(Exception):
    """The server cannot start; the text says why."""


class TransportServer(Protocol):
    """A transport with everything registered on it; its methods are called in this order, by one thread."""

    def listen(self, address: str) -> int:
        """Take a port, with TLS or without as the settings say; RuntimeError when it cannot be had."""

    def start(self) -> None:
        """Answer calls."""

    def stop(self, timeout_s: float) -> None:
        """Turn new calls away and return when none is left, cancelling those that take longer."""

    def traffic(self) -> dict[str, int]:
        """Counts of connections, calls and bytes by name; those that the transport has. From any thread."""

    def close(self) -> None:
        """End what is left of it, once the engine is idle."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the process's exit status.

    Raises
    ------
    ServerError
        The address is taken or cannot be used.
    CertificateError
        The certificates cannot be used.
    """
    events = ServerEvents()
    configure_runtime(intra_op_threads=settings.intra_op_threads, inter_op_threads=settings.inter_op_threads)
    logger.info("starting", extra={"onnxruntime": runtime_version(), "transport": settings.transport})
    engine = Engine(
        workers=settings.workers,
        max_queue_requests=settings.max_queue_requests,
        max_pending_bytes=settings.max_pending_bytes,
        inline=settings.inline,
        inline_limit_us=settings.inline_limit_us,
        response_cache_bytes=settings.response_cache_bytes,
        idempotency_bytes=settings.idempotency_bytes,
        idempotency_life_us=int(settings.idempotency_ttl_s * 1e6),
        sequence_drain_us=int(settings.drain_timeout_s * 1e6),
    )
    server = InferenceServer(settings, engine)
    server.start()
    loading = _load_aside(server, events)
    try:
        if events.wait() is ServerEvent.LOADED:
            loading.result()
            server.mark_ready()
            events.wait()
    finally:
        drained = server.stop(settings.drain_timeout_s)
    if not drained or not loading.done() or server.is_loading:
        # Neither a run nor a load can be broken off, and closing the engine would wait for its end.
        logging.shutdown()
        os._exit(0 if drained else 1)
    engine.close()
    return 0


def _load_aside(server: "InferenceServer", events: ServerEvents) -> Future[None]:
    loading = ThreadPoolExecutor(1, thread_name_prefix="loading").submit(server.load_models)
    loading.add_done_callback(lambda _: events.tell_loaded())
    return loading


class InferenceServer:
    """The services on one port."""

    def __init__(self, settings: Settings, engine: Engine):
        self._settings = settings
        self._engine = engine
        self._board = HealthBoard()
        self._repository = Repository()
        self._repository.subscribe(self._board.update)
        self._lifecycle = LazyLifecycle(
            settings.model_repository,
            engine,
            self._repository,
            default_max_batch_size=settings.default_max_batch_size,
            is_lazy=lambda name: settings.lazy_loading and name not in settings.pinned_models,
        )
        self._poller = RepositoryPoller(settings.model_repository, self._lifecycle, settings.repository_poll_secs)
        self._tracer = Tracer(engine, settings.trace_file)
        self._guard = make_guard(settings)
        permissions = Permissions(settings.remote_controls, self._guard)
        observed = Observed(engine, make_log_settings(settings), self._tracer.settings, permissions)
        control = ModelControl(self._lifecycle, self._repository, permissions, mode=settings.model_control_mode)
        services = Services(engine, self._repository, self._board, observed, control, self._guard)
        self._transport = make_transport(settings, services)
        self._policy_watch: PolicyWatch | None = None
        self._metrics = Metrics(
            lambda: describe_models(read_statistics(engine, self._repository)),
            lambda: describe_loads(self._repository.index()),
            lambda: describe_transport(self._transport.traffic()),
            lambda: describe_cache(engine.cache_usage()),
            lambda: describe_keyed(engine.idempotency_usage()),
            MachineMetrics().describe,
        )
        self._expiry: ExpiryWatch | None = None
        if settings.has_tls:
            self._expiry = ExpiryWatch(
                filter(None, (settings.tls_cert, settings.tls_client_ca, settings.tls_client_crl))
            )
            self._metrics.add(self._expiry.describe)
        self._metrics_server: MetricsServer | None = None
        self._lazy: LazyLoading | None = None

    def start(self) -> None:
        """Find the models, listen and answer; not ready until mark_ready.

        Raises
        ------
        ServerError
            The address cannot be had, or what models take cannot be measured.
        ModelFolderError
            The repository cannot be read.
        """
        if self._settings.lazy_loading:
            self._lazy = self._prepare_lazy()
        # Before anybody can call: a model that is there is never unknown, not even for a moment.
        if self._settings.model_control_mode == "poll":
            self._poller.remember()
        self._lifecycle.find_models(self._is_wanted)
        address = format_address(self._settings.host, self._settings.grpc_port)
        try:
            self.port = self._transport.listen(address)
        except RuntimeError as error:
            reason = getattr(error.__cause__, "strerror", None) or "it is taken, or no address of this machine"
            raise ServerError(f"cannot listen on {address}: {reason}") from None
        if self._settings.metrics_port is not None:
            keep_library_open()
            self._metrics.add(GpuMetrics().describe)
            self._metrics_server = self._listen_for_scrapes(self._settings.metrics_port)
            self._metrics_server.start()
        if self._expiry is not None:
            self._expiry.start()
        if self._guard is not None:
            self._policy_watch = PolicyWatch(self._settings.policy, self._guard)
        self._transport.start()

    def _prepare_lazy(self) -> LazyLoading:
        # What ONNX Runtime takes for itself is no model's.
        start_runtime()
        settings = self._settings
        try:
            budget = MemoryBudget(
                self._engine, self._lifecycle, settings.memory_budget_bytes, pinned=settings.pinned_models
            )
        except AllocatorError as error:
            raise ServerError(f"cannot load lazily: {error}") from None
        lazy = LazyLoading(self._engine, self._lifecycle, budget)
        configs = DormantConfigs(
            settings.model_repository, self._repository, settings.default_max_batch_size, load=lazy.bring
        )
        self._repository.describe_by(configs.describe)
        self._metrics.add(lazy.describe)
        return lazy

    def _listen_for_scrapes(self, port: int) -> MetricsServer:
        try:
            return MetricsServer(self._settings.host, port, self._metrics)
        except OSError as error:
            address = format_address(self._settings.host, port)
            raise ServerError(f"cannot listen on {address} for metrics: {error.strerror}") from None

    def load_models(self) -> None:
        """Load the models that start has found, and follow the repository if that is asked for; runs beside serving."""
        named = {*self._settings.load_models, *self._settings.pinned_models} - {EVERY_MODEL}
        for name in sorted(named - self._repository.names()):
            logger.error("model to load is not in the repository", extra={"model": name})
        if self._lazy is not None:
            self._lazy.start()
        self._lifecycle.load_found()
        if self._settings.model_control_mode == "poll":
            self._poller.start()

    def _is_wanted(self, name: str) -> bool:
        """Whether a model is to be loaded at the start."""
        wanted = self._settings.load_models
        return self._settings.model_control_mode != "explicit" or name in wanted or EVERY_MODEL in wanted

    @property
    def is_loading(self) -> bool:
        """Whether a load or an unload is under way."""
        return self._lifecycle.is_busy

    def mark_ready(self) -> None:
        """Say to health checks and in the log that the server takes requests."""
        self._board.mark_ready()
        address = format_address(self._settings.host, self.port)
        fields: dict[str, object] = {"address": address, "tls": self._settings.has_tls}
        if self._metrics_server is not None:
            fields["metrics"] = format_address(self._metrics_server.host, self._metrics_server.port)
        logger.info("ready", extra=fields)

    def stop(self, timeout_s: float) -> bool:
        """Turn new calls away, let accepted ones finish, close. True when all finished in time."""
        logger.info("draining", extra={"timeout_s": timeout_s})
        self._board.drain()
        self._poller.stop()
        self._lifecycle.stop_loading()
        if self._lazy is not None:
            self._lazy.stop()
        until = time.monotonic() + timeout_s
        self._transport.stop(timeout_s)
        drained = self._engine.drain(max(CLOSING_GRACE_S, until - time.monotonic()))
        self._tracer.close()
        if self._expiry is not None:
            self._expiry.stop()
        # What the drain does can be watched to its end.
        if self._metrics_server is not None:
            self._metrics_server.stop()
        if self._policy_watch is not None:
            self._policy_watch.close()
        self._transport.close()
        logger.info("stopped", extra={"drained": drained})
        return drained


def make_log_settings(settings: Settings) -> LogSettings:
    """The log settings of this process, in force from now on."""
    logs = LogSettings(settings.log_level, settings.log_format)
    logs.attach()
    return logs


def make_guard(settings: Settings) -> Guard | None:
    """What checks callers against the policy; None without one. Raises ServerError."""
    if settings.policy is None:
        return None
    try:
        policy = read_policy(settings.policy)
    except DeploymentError as error:
        raise ServerError(f"the policy cannot be used: {error}") from None
    return Guard(policy, Callers(settings.gateways or settings.allowed_clients))


def make_transport(settings: Settings, services: Services) -> TransportServer:
    """The transport that the settings ask for; only that one is imported."""
    if settings.transport == "native":
        from service.native_server import NativeServer

        return NativeServer(settings, services)
    from service.grpcio_server import GrpcioServer

    return GrpcioServer(settings, services)


def format_address(host: str, port: int) -> str:
    """Host and port as URLs have them, an IPv6 address in brackets; a Unix socket's has no port."""
    if host.startswith(UNIX_PREFIX):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
