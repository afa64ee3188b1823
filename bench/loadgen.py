"""gRPC load from our own generator (bench/native/loadgen.c), on the load's core.

Beside what h2load does it keeps a rate whether or not the server follows, with latencies that begin when a call was
due, and gives percentiles; it knows gRPC's trailers, speaks mTLS, and counts handshakes.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.h2load import INFER_PATH
from bench.processes import HOST, LOAD_CORE, STOP_TIMEOUT_S, BenchError, pinned
from bench.programs import compile_program

TIME_LIMIT_S = 60.0


@dataclass(frozen=True)
class Credentials:
    """What a client shows and whom it trusts: PEM files; and the name that the server must have."""

    authority: Path
    certificate: Path
    key: Path
    server_name: str = "localhost"

    @property
    def options(self) -> list[str]:
        """For the generator's command line."""
        files = {"ca": self.authority, "cert": self.certificate, "key": self.key}
        return [*(f"--tls-{name}={path}" for name, path in files.items()), f"--server-name={self.server_name}"]

    def for_grpcio(self) -> grpc.ChannelCredentials:
        """For grpcio's client, which takes the server's name from the address."""
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


@dataclass(frozen=True)
class Calls:
    """What came of calls; latencies are those of the calls that succeeded, in microseconds.

    Attributes
    ----------
    failures
        By kind: another grpc-status than 0 (`status`), another HTTP status than 200 (`http`), no grpc-status
        (`trailers`), a stream reset (`reset`) or a connection lost (`connection`) under the call, no answer within
        the time limit (`unanswered`).
    unsent
        Calls that were not begun within the time limit.
    reply_bytes
        Of gRPC messages, their prefixes among them.
    seconds
        From the first call to the last answer, connecting excluded.
    cpu_seconds
        CPU time that the watched process took meanwhile, user and system, all its threads; 0 without one.
    lateness_us
        At a rate: how long after it was due a call was begun. It is part of the call's latency; where it is a large
        part, the generator could not keep up, or all the calls that there may be at a time were under way.
    """

    requests: int
    succeeded: int
    failed: int
    unsent: int
    seconds: float
    cpu_seconds: float
    reply_bytes: int
    failures: Mapping[str, int]
    latency_us: Mapping[str, float]
    lateness_us: Mapping[str, float]


@dataclass(frozen=True)
class Handshakes:
    """What came of connections that were made, greeted by the server and closed."""

    requests: int
    succeeded: int
    failed: int
    resumed: int
    seconds: float
    latency_us: Mapping[str, float]


def run_calls(
    port: int,
    frame: Path,
    *,
    connections: int,
    streams: int = 1,
    in_flight: int | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    rate: float | None = None,
    cpu_of: int | None = None,
    path: str = INFER_PATH,
    headers: Sequence[str] = (),
    credentials: Credentials | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> Calls:
    """Send calls until there were so many, or for so long, and wait for their answers.

    Parameters
    ----------
    frame
        File with the message as gRPC frames it.
    streams
        Most calls at a time on each connection.
    in_flight
        Most calls at a time in all, taking the connections in turn; None: connections × streams.
    rate
        Calls a second, at fixed intervals; None sends the next when one is answered.
    cpu_of
        Process whose CPU time is watched.

    Raises
    ------
    BenchError
        The server could not be reached. Calls that fail are counted.
    """
    limits = {"in-flight": in_flight, "requests": requests, "duration": duration_s, "rate": rate, "cpu-of": cpu_of}
    options = [f"--{name}={value}" for name, value in limits.items() if value is not None]
    options += [f"--connections={connections}", f"--streams={streams}", f"--frame={frame}", f"--path={path}"]
    options += [f"--header={header}" for header in headers]
    return Calls(**_run(port, options, credentials, time_limit_s))


def run_handshakes(
    port: int,
    *,
    handshakes: int,
    connections: int,
    credentials: Credentials | None = None,
    is_resuming: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
) -> Handshakes:
    """Make connections, `connections` at a time, wait until the server has greeted each, and close it."""
    options = [f"--handshakes={handshakes}", f"--connections={connections}", *(["--resume"] if is_resuming else [])]
    return Handshakes(**_run(port, options, credentials, time_limit_s))


@contextmanager
def keep_idle(
    port: int, *, connections: int, credentials: Credentials | None = None, time_limit_s: float = TIME_LIMIT_S
) -> Iterator[None]:
    """Connections that the server has greeted and that carry no calls."""
    command = _make_command(port, ["--idle", f"--connections={connections}"], credentials, time_limit_s)
    with pinned(LOAD_CORE):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        if not process.stdout.readline():
            raise BenchError(process.communicate(timeout=STOP_TIMEOUT_S)[1].strip())
        yield
    finally:
        process.communicate(timeout=STOP_TIMEOUT_S)


def _run(port: int, options: Sequence[str], credentials: Credentials | None, time_limit_s: float) -> dict[str, Any]:
    with pinned(LOAD_CORE):
        done = subprocess.run(_make_command(port, options, credentials, time_limit_s), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(done.stderr.strip() or f"loadgen ended with {done.returncode}")
    return json.loads(done.stdout)


def _make_command(
    port: int, options: Sequence[str], credentials: Credentials | None, time_limit_s: float
) -> list[str | Path]:
    tls = credentials.options if credentials else []
    fixed = [f"--address={HOST}:{port}", f"--time-limit={time_limit_s}"]
    return [compile_program("loadgen"), *fixed, *options, *tls]
