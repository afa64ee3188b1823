"""The servers that are measured over gRPC, on the server's core, and a first call to each that shows that it works."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.h2load import INFER_PATH, run_load, write_frame
from bench.processes import read_tree_cpu_ns, run_python, run_server
from bench.programs import compile_program

READY = '"event": "ready"'
RUN_CLI = "from service.cli import main; main()"
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running server: its process, and its port on 127.0.0.1."""

    name: str
    pid: int
    port: int

    def call(self, message: bytes) -> bytes:
        """Send one request and return the reply, both on the wire; grpc.RpcError when it is refused."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
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


@contextmanager
def run_sluice(repository: Path, folder: Path) -> Iterator[Server]:
    """`sluice serve`, in plain text, with its ordinary settings."""
    options = [f"--model-repository={repository}", "--host=127.0.0.1", "--grpc-port=0", "--insecure"]
    with run_server("sluice", [sys.executable, "-c", RUN_CLI, "serve", *options], folder, READY) as (child, line):
        yield Server("sluice", child.pid, _read_port(line))


@contextmanager
def run_echo(folder: Path) -> Iterator[Server]:
    """The echo on the same transport."""
    with run_server("echo", run_python("bench.echo_server"), folder, READY) as (child, line):
        yield Server("echo", child.pid, _read_port(line))


@contextmanager
def run_floor(folder: Path, *, is_empty: bool = False) -> Iterator[Server]:
    """The echo on nghttp2 in C; with `is_empty` every reply is an empty message."""
    command = [compile_program("floor"), *(["--empty"] if is_empty else [])]
    with run_server("floor", command, folder, READY) as (child, line):
        yield Server("floor", child.pid, _read_port(line))


def prepare_load(server: Server, message: bytes, folder: Path) -> tuple[Path, int]:
    """Call once; returns the file for h2load and the size that every reply must have."""
    reply = server.call(message)
    return write_frame(folder / f"{server.name}.frame", message), len(reply)


def _read_port(line: str) -> int:
    return int(json.loads(line)["address"].rpartition(":")[2])
