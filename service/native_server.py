"""The native transport: inference from socket to socket without Python, everything else on a few threads."""

from dataclasses import fields

from kernels.grpc_server import Server
from kernels.limits import Limits
from kernels.tls import TlsError, TlsSettings
from service.credentials import CertificateError, CertificateFiles, Certificates, CertificateWatch
from service.headers import REQUEST_ID_HEADER, VERSION_HEADER
from service.health import HealthServicer
from service.metadata import SERVICE_NAME
from service.model_control import MAX_CALLS
from service.peers import REFUSAL, GuardedServer
from service.services import Services
from service.settings import Settings

# By name, whether they are streams.
BOUND_METHODS = {"ModelInfer": False, "ModelStreamInfer": True}
# For servicers, which answer from memory but for loads and unloads, and for reflection's streams.
SERVICER_THREADS = 4 + MAX_CALLS
STREAM_THREADS = 4
# Calls of Python servicers, open watches among them; one beyond is refused with RESOURCE_EXHAUSTED.
MAX_CONCURRENT_CALLS = 16384
# From the end of the time to drain until calls that were cancelled then must be gone, in seconds.
ABORT_TIMEOUT_S = 1.0


class NativeServer:
    """A service.server.TransportServer."""

    def __init__(self, settings: Settings, services: Services):
        self._settings = settings
        self._watch: CertificateWatch | None = None
        self._server = Server(
            read_limits(settings),
            io_threads=settings.io_threads,
            spin_us=settings.spin_us,
            threads=SERVICER_THREADS,
            stream_threads=STREAM_THREADS,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            admit=services.guard and (lambda info: services.guard.admit(info.auth, info.metadata)),
        )
        if services.guard is not None:
            services.guard.subscribe(self._server.forget_permits)
        guarded = GuardedServer(self._server, settings.allowed_clients, services.observed.permissions)
        services.register(guarded, HealthServicer(services.board), asynchronous=False)
        for name, streams in BOUND_METHODS.items():
            path = f"/{SERVICE_NAME}/{name}"
            self._server.bind(
                path,
                services.engine,
                version_header=VERSION_HEADER,
                request_id_header=REQUEST_ID_HEADER,
                streaming=streams,
            )

    def listen(self, address: str) -> int:
        """Take a port; RuntimeError when it cannot be had, CertificateError when the certificates cannot be used."""
        if self._settings.insecure:
            return self._server.add_insecure_port(address)
        files = CertificateFiles(self._settings)
        try:
            port = self._server.add_secure_port(address, self._make_tls(files.current))
        except TlsError as error:
            raise CertificateError(str(error)) from None
        self._watch = CertificateWatch(files, self._replace)
        return port

    def _make_tls(self, certificates: Certificates) -> TlsSettings:
        return TlsSettings(
            certificate=certificates.chain,
            key=certificates.key,
            client_ca=certificates.authorities,
            crl=certificates.revoked,
            allowed_names=self._settings.allowed_clients,
            refusal=REFUSAL,
        )

    def _replace(self, certificates: Certificates) -> None:
        try:
            self._server.replace_tls(self._make_tls(certificates))
        except TlsError as error:
            raise CertificateError(str(error)) from None

    def start(self) -> None:
        """Answer calls."""
        self._server.start()

    def stop(self, timeout_s: float) -> None:
        """Turn new calls away and return when none is left, cancelling those that take longer."""
        self._server.stop(timeout_s).wait(timeout_s + ABORT_TIMEOUT_S)

    def traffic(self) -> dict[str, int]:
        """Counts of connections, calls and bytes by name."""
        return self._server.traffic()

    def close(self) -> None:
        """End what is left of it."""
        if self._watch is not None:
            self._watch.close()


def read_limits(settings: Settings) -> Limits:
    """The transport's limits, which are settings of the same names."""
    return Limits(**{limit.name: getattr(settings, limit.name) for limit in fields(Limits)})
