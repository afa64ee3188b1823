"""Answers GET /metrics over plain HTTP on a port of its own."""

import http.server
import ipaddress
import logging
import socket
import sys
import threading
from http import HTTPStatus

from service.exposition import CONTENT_TYPE
from service.metrics import Metrics
from service.setting_checks import UNIX_PREFIX

PATH = "/metrics"
# Connections at a time; one more is closed at once. A scraper needs one.
MAX_CONNECTIONS = 8
# What a peer may take to send its request, or the answer to be taken, in seconds.
TIMEOUT_S = 5.0
# How often the thread that accepts looks whether it is to stop, in seconds.
POLL_S = 0.1

logger = logging.getLogger(__name__)


class MetricsServer:
    """Listens from its making on, answers from start() to stop().

    Raises
    ------
    OSError
        The port is taken, or the host is no address of this machine.
    """

    def __init__(self, host: str, port: int, metrics: Metrics):
        # A Unix socket's server is scraped over loopback: a scraper needs a port.
        host = "127.0.0.1" if host.startswith(UNIX_PREFIX) else host
        self._server = _Server(host, port, metrics)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
        self.host, self.port = host, self._server.server_address[1]

    def start(self) -> None:
        """Answer scrapes, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port; scrapes under way end by themselves."""
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # A scrape that is under way does not keep the process from ending.
    block_on_close = False

    def __init__(self, host: str, port: int, metrics: Metrics):
        self.address_family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
        self.metrics = metrics
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks DNS for the host's name, which nobody needs and which may take long.
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: socket.socket, client_address: object) -> None:
        """Answer in a thread, while there is one left."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket.socket, client_address: object) -> None:
        """Forget a peer that broke off or took too long; log what is our own fault."""
        if not isinstance(sys.exception(), OSError):
            logger.error("metrics request failed", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: _Server
    server_version = "sluice"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, f"there is {PATH} and nothing else")
            return
        text = self.server.metrics.write()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if with_body:
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Log no scrape."""


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
