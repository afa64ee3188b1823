"""Unary calls from grpcio's asyncio client, one after another or several at a time, each timed."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvloop

from bench.h2load import INFER_PATH
from bench.processes import LOAD_CORE, pinned

CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Target:
    """A server that asks for a certificate: where it is, and the PEM files to call it with.

    Attributes
    ----------
    identity
        Path of the client's certificate without `.pem`, beside its key.
    """

    address: str
    authority: Path
    identity: Path

    def connect(self) -> grpc.aio.Channel:
        """A channel with a connection of its own."""
        certificate, key = (Path(f"{self.identity}.{kind}").read_bytes() for kind in ("pem", "key"))
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes(), key, certificate)
        # The certificates are for localhost, among others, whichever port it is.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        return grpc.aio.secure_channel(self.address, credentials, options)


def time_calls(target: Target, message: bytes, *, calls: int, in_flight: int) -> list[float]:
    """Latencies of `calls` calls in microseconds, sorted; grpc.RpcError when one fails. Connecting is not timed."""
    with pinned(LOAD_CORE):
        return uvloop.run(make_calls(target, message, calls, in_flight))


async def make_calls(target: Target, message: bytes, calls: int, in_flight: int) -> list[float]:
    """As time_calls does, in a loop that runs."""
    async with target.connect() as channel:
        method = channel.unary_unary(INFER_PATH)
        await method(message, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        shares = [len(range(first, calls, in_flight)) for first in range(in_flight)]
        found = await asyncio.gather(*(_call(method, message, share) for share in shares))
        return sorted(itertools.chain.from_iterable(found))


async def _call(method: grpc.aio.UnaryUnaryMultiCallable, message: bytes, calls: int) -> list[float]:
    took_us = []
    for _ in range(calls):
        started_ns = time.perf_counter_ns()
        await method(message, timeout=CALL_TIMEOUT_S)
        took_us.append((time.perf_counter_ns() - started_ns) / 1000)
    return took_us


def find_percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of an ordered sequence does not exceed."""
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]
