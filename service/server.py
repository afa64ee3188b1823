"""One serving process: the engine, the model repository and grpcio's asyncio server over them, from start to drain."""

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2_grpc

from kernels.engine import Engine
from kernels.runtime import configure_runtime, runtime_version
from service import health, metadata
from service.credentials import CertificateFiles
from service.inference import InferenceHandler
from service.pb import open_inference_pb2_grpc
from service.peers import GuardedServer
from service.reflection import add_reflection
from service.repository import Repository
from service.settings import Settings

# Threads for the synchronous servicers; they answer from memory.
SERVICER_THREADS = 4
# In all, and on one connection; a call beyond is refused with RESOURCE_EXHAUSTED, or waits at its client.
MAX_CONCURRENT_CALLS = 16384
MAX_CONNECTION_CALLS = 1024
# What a call that came in while the process was stopping may still take after the drain, in seconds.
CLOSING_GRACE_S = 1.0

logger = logging.getLogger(__name__)


class ServerError(Exception):
    """The server cannot start; the text says why."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the process's exit status.

    Raises
    ------
    ServerError
        The address is taken or cannot be used.
    """
    return _run(_serve(settings))


def _run(main) -> int:
    """Run on uvloop, which installs on Linux, else on the standard loop: same behaviour, about a third slower."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    configure_runtime(intra_op_threads=settings.intra_op_threads, inter_op_threads=settings.inter_op_threads)
    logger.info("starting", extra={"onnxruntime": runtime_version()})
    engine = Engine(
        workers=settings.workers,
        max_queue_requests=settings.max_queue_requests,
        max_pending_bytes=settings.max_pending_bytes,
    )
    server = InferenceServer(settings, engine)
    await server.start()
    loading = loop.run_in_executor(None, server.load_models)
    await asyncio.wait([loading, asyncio.ensure_future(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        loading.result()
        server.mark_ready()
        await stopping.wait()
    drained = await server.stop(settings.drain_timeout_s)
    if not drained or not loading.done():
        # Neither a run nor a load can be broken off, and closing the engine would wait for its end.
        logging.shutdown()
        os._exit(0 if drained else 1)
    await loading
    engine.close()
    return 0


class InferenceServer:
    """The services on one port; belongs to the event loop that it is made in."""

    def __init__(self, settings: Settings, engine: Engine):
        self._settings = settings
        self._engine = engine
        self._board = health.HealthBoard()
        self._repository = Repository(
            settings.model_repository, engine, default_max_batch_size=settings.default_max_batch_size
        )
        self._repository.subscribe(self._board.update)
        self._threads = ThreadPoolExecutor(SERVICER_THREADS, thread_name_prefix="servicer")
        self._server = grpc.aio.server(
            self._threads, options=channel_options(settings), maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
        )
        self._inference = InferenceHandler(engine)
        self._health = health.AsyncHealthServicer(self._board)
        self._register(GuardedServer(self._server, settings.allowed_clients))

    def _register(self, guarded: GuardedServer) -> None:
        servicer = metadata.InferenceServicer(self._repository, self._board)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, guarded)
        guarded.add_registered_method_handlers(metadata.SERVICE_NAME, self._inference.methods())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        add_reflection(guarded, (metadata.SERVICE_NAME, health.SERVICE_NAME), asynchronous=True)

    async def start(self) -> None:
        """Find the models, listen and answer; not ready until mark_ready.

        Raises
        ------
        ServerError
            The address cannot be had.
        ModelFolderError
            The repository cannot be read.
        """
        # Before anybody can call: a model that is there is never unknown, not even for a moment.
        self._repository.find_models()
        address = format_address(self._settings.host, self._settings.grpc_port)
        try:
            self.port = self._add_port(address)
        except RuntimeError:
            raise ServerError(f"cannot listen on {address}: it is taken, or no address of this machine") from None
        await self._server.start()

    def _add_port(self, address: str) -> int:
        if self._settings.insecure:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, CertificateFiles(self._settings).credentials())

    def load_models(self) -> None:
        """Load the models that start has found; blocks, and may run beside serving."""
        self._repository.load()

    def mark_ready(self) -> None:
        """Say to health checks and in the log that the server takes requests."""
        self._board.mark_ready()
        address = format_address(self._settings.host, self.port)
        logger.info("ready", extra={"address": address, "tls": self._settings.has_tls})

    async def stop(self, timeout_s: float) -> bool:
        """Turn new calls away, let accepted ones finish, close. True when all finished in time."""
        logger.info("draining", extra={"timeout_s": timeout_s})
        self._board.drain()
        self._repository.stop_loading()
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._server.stop(timeout_s)
        drained = await loop.run_in_executor(None, self._engine.drain, max(CLOSING_GRACE_S, until - loop.time()))
        self._health.close()
        self._inference.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        logger.info("stopped", extra={"drained": drained})
        return drained


def format_address(host: str, port: int) -> str:
    """Host and port as URLs have them; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """grpcio's options for the server's settings."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # On by default in grpcio: a second server would bind the same port in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", MAX_CONNECTION_CALLS),
        # A gateway pings every second to notice a hung server; grpcio would take that for an attack and hang up.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
