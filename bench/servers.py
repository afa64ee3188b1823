"""The servers that are measured over gRPC, on the server's core, and a first call to each that shows that it works."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.certificates import Certificates
from bench.h2load import INFER_PATH, PREFIX_BYTES, run_load, write_frame
from bench.loadgen import Calls, Credentials, run_calls
from bench.processes import BenchError, read_tree_cpu_ns, run_python, run_server
from bench.programs import compile_program

READY = '"event": "ready"'
RUN_CLI = "from service.cli import main; main()"
CALL_TIMEOUT_S = 30.0
# The transport of `sluice serve` that bench.transport measures.
TRANSPORT = "native"
TRANSPORT_OPTIONS = (f"--transport={TRANSPORT}",)


@dataclass(frozen=True)
class Server:
    """A running server: its process, its port on 127.0.0.1, and what to call it with, if it speaks TLS."""

    name: str
    pid: int
    port: int
    credentials: Credentials | None = None

    def call(self, message: bytes) -> bytes:
        """Send one request and return the reply, both on the wire; grpc.RpcError when it is refused."""
        # The largest message that is measured is longer than what grpcio's client takes by itself.
        options = [("grpc.max_receive_message_length", -1)]
        address = f"127.0.0.1:{self.port}"
        if self.credentials:
            credentials = self.credentials.for_grpcio()
            channel = grpc.secure_channel(address, credentials, options)
        else:
            channel = grpc.insecure_channel(address, options)
        with channel:
            return channel.unary_unary(INFER_PATH)(message, timeout=CALL_TIMEOUT_S, wait_for_ready=True)

    def measure_load(
        self, frame: Path, reply_bytes: int, clients: int, streams: int, requests: int
    ) -> dict[str, float]:
        """Figures of the server under one load."""
        before_ns = read_tree_cpu_ns(self.pid)
        result = run_load(
            self.port, frame, clients=clients, streams=streams, requests=requests, reply_bytes=reply_bytes
        )
        return {
            "cpu_us_per_request": (read_tree_cpu_ns(self.pid) - before_ns) / requests / 1000,
            "requests_per_s": requests / result.elapsed_s,
            "mean_latency_us": result.mean_us,
        }

    def measure_calls(
        self, frame: Path, reply_bytes: int, *, may_fail: bool = False, **load: Any
    ) -> tuple[float, Calls]:
        """CPU time a call of the server's process in microseconds, and what our own generator saw.

        Parameters
        ----------
        may_fail
            Calls may be refused, as by a server that is offered more than it can do.
        load
            For `run_calls`.

        Raises
        ------
        BenchError
            A call failed, or got another reply than one of `reply_bytes`.
        """
        calls = run_calls(self.port, frame, credentials=self.credentials, cpu_of=self.pid, **load)
        cpu_us = calls.cpu_seconds * 1e6 / max(calls.requests, 1)
        if (calls.failed and not may_fail) or calls.reply_bytes != (PREFIX_BYTES + reply_bytes) * calls.succeeded:
            raise BenchError(f"{self.name}: expected replies of {reply_bytes} bytes to all calls, given {calls}")
        return cpu_us, calls


@contextmanager
def run_sluice(
    repository: Path,
    folder: Path,
    *,
    name: str = "sluice",
    certificates: Certificates | None = None,
    options: Sequence[str] = (),
    **placed: Any,
) -> Iterator[Server]:
    """`sluice serve`, with its ordinary settings but for `options`; in plain text where there are no certificates.

    Parameters
    ----------
    placed
        Cores and time to start, for `run_server`.
    """
    fixed = [f"--model-repository={repository}", "--host=127.0.0.1", "--grpc-port=0"]
    security = certificates.sluice_options if certificates else ["--insecure"]
    command = [sys.executable, "-c", RUN_CLI, "serve", *fixed, *security, *options]
    with run_server(name, command, folder, READY, **placed) as (child, line):
        yield Server(name, child.pid, _read_port(line), certificates.client if certificates else None)


@contextmanager
def run_echo(folder: Path, *, name: str = "echo", certificates: Certificates | None = None) -> Iterator[Server]:
    """The echo on the same transport as sluice's first."""
    files = [certificates.certificate, certificates.key, certificates.client_authority] if certificates else []
    with run_server(name, run_python("bench.echo_server", *files), folder, READY) as (child, line):
        yield Server(name, child.pid, _read_port(line), certificates.client if certificates else None)


@contextmanager
def run_floor(folder: Path, *, is_empty: bool = False) -> Iterator[Server]:
    """The echo on nghttp2 in C; with `is_empty` every reply is an empty message."""
    command = [compile_program("floor"), *(["--empty"] if is_empty else [])]
    with run_server("floor", command, folder, READY) as (child, line):
        yield Server("floor", child.pid, _read_port(line))


def prepare_load(server: Server, message: bytes, folder: Path) -> tuple[Path, int]:
    """Call once; returns the file for the load generator and the size that every reply must have."""
    reply = server.call(message)
    return write_frame(folder / f"{server.name}.frame", message), len(reply)


def _read_port(line: str) -> int:
    return int(json.loads(line)["address"].rpartition(":")[2])
