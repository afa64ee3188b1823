"""A client process whose calls go one way or another; grpcio reads the bootstrap of xDS once a process."""

import os
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.calls import Target, find_percentile, make_calls
from bench.loops import answer_commands, read_settings
from bench.processes import LOAD_CORE, Loop


class DirectLoop(Loop):
    """Calls `tiny` so many times by a way; `ways` is that of bench.direct.describe_ways."""

    def __init__(self, ways: dict[str, Any]):
        super().__init__(__name__, ways, cores=(LOAD_CORE,))


class XdsTarget:
    """Whatever the control plane says."""

    def __init__(self, name: str) -> None:
        self._name = name

    def connect(self) -> grpc.aio.Channel:
        """A channel that follows it."""
        return grpc.aio.secure_channel(self._name, grpc.xds_channel_credentials())


def main() -> None:
    """Call as is asked for."""
    from bench.models import encode_tiny

    settings = read_settings()
    os.environ["GRPC_XDS_BOOTSTRAP"] = settings["bootstrap"]
    targets = {way: _make_target(settings[way]) for way in ("direct", "through", "known")}
    message = encode_tiny()

    def run(way: str, calls: int, in_flight: int) -> dict[str, float]:
        took_us = uvloop.run(make_calls(targets[way], message, calls, in_flight))
        return {"p50_us": find_percentile(took_us, 0.5), "p99_us": find_percentile(took_us, 0.99)}

    answer_commands(run)


def _make_target(place: str | list[str]) -> Target | XdsTarget:
    if isinstance(place, str):
        return XdsTarget(place)
    address, authority, identity = place
    return Target(address, Path(authority), Path(identity))


if __name__ == "__main__":
    main()
