"""The reference transport: grpcio's asyncio server, in a thread with an event loop of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from kernels.unix_socket import OWNER_ONLY, clear_path, read_path
from service.credentials import CertificateFiles, Certificates
from service.health import AsyncHealthServicer
from service.inference import InferenceHandler
from service.metadata import SERVICE_NAME
from service.model_control import MAX_CALLS
from service.peers import GuardedServer
from service.services import Services
from service.settings import Settings

# Threads for the synchronous servicers; they answer from memory, but for loads and unloads.
SERVICER_THREADS = 4 + MAX_CALLS
# In all, and on one connection; a call beyond is refused with RESOURCE_EXHAUSTED, or waits at its client.
MAX_CONCURRENT_CALLS = 16384
MAX_CONNECTION_CALLS = 1024


class GrpcioServer:
    """A service.server.TransportServer."""

    def __init__(self, settings: Settings, services: Services):
        self._settings = settings
        self._threads = ThreadPoolExecutor(SERVICER_THREADS, thread_name_prefix="servicer")
        self._loop = make_loop()
        threading.Thread(target=self._loop.run_forever, name="grpcio", daemon=True).start()
        self._run(self._build(services))

    def _run(self, coroutine: Coroutine) -> object:
        """Run a coroutine in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _build(self, services: Services) -> None:
        self._server = grpc.aio.server(
            self._threads, options=channel_options(self._settings), maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
        )
        self._inference = InferenceHandler(services.engine, services.guard)
        self._health = AsyncHealthServicer(services.board)
        guarded = GuardedServer(self._server, self._settings.allowed_clients, services.observed.permissions)
        services.register(guarded, self._health, asynchronous=True)
        guarded.add_registered_method_handlers(SERVICE_NAME, self._inference.methods())

    def listen(self, address: str) -> int:
        """Take a port; RuntimeError when it cannot be had."""
        return self._run(self._listen(address))

    async def _listen(self, address: str) -> int:
        path = read_path(address)
        if path is not None:
            take_path(path)
        if self._settings.insecure:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, follow_files(CertificateFiles(self._settings)))
        if path is None:
            return port
        path.chmod(OWNER_ONLY)
        return 0

    def start(self) -> None:
        """Answer calls."""
        self._run(self._server.start())

    def stop(self, timeout_s: float) -> None:
        """Turn new calls away and return when none is left, cancelling those that take longer."""
        self._run(self._server.stop(timeout_s))

    def traffic(self) -> dict[str, int]:
        """Nothing: grpcio does not say."""
        return {}

    def close(self) -> None:
        """End the services; the loop ends with the process."""
        self._run(self._close())
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _close(self) -> None:
        self._health.close()
        self._inference.close()


def take_path(path: Path) -> None:
    """Refuse a path where a server lives: grpcio would put its own socket there. Raises RuntimeError."""
    try:
        clear_path(path)
    except OSError as error:
        raise RuntimeError(str(error)) from error


def make_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, which installs on Linux, else the standard one: same behaviour, about a third slower."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def follow_files(files: CertificateFiles) -> grpc.ServerCredentials:
    """Server credentials that follow the files; a client without a certificate fails in the handshake."""
    # grpcio asks before each handshake, from a thread of its own; None keeps what is in force.
    return grpc.dynamic_ssl_server_credentials(
        _configure(files.current), lambda: files.refresh(_configure), require_client_authentication=True
    )


def _configure(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificates.authorities)


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
