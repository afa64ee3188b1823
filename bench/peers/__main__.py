"""`python -m bench.peers NAME`: installs a peer, puts it and sluice under the same loads in turn, writes the rows."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import numpy_helper

from bench.effort import Effort
from bench.h2load import LOADS
from bench.models import encode_tiny, save_tiny
from bench.origin import ROOT, describe_origin
from bench.peers import mlserver, triton
from bench.peers.environments import Environment
from bench.processes import BenchError, find_free_ports, run_server
from bench.rows import Row, collect_figures, compare, format_rows, write_rows
from bench.servers import Server, prepare_load, run_sluice
from service.client import read_response
from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from tests import onnx_models

PEERS = {"mlserver": mlserver, "triton": triton}


def main() -> int:
    """Measure the peer that is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.partition(": ")[2])
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--quick", action="store_true", help="show that it runs; the figures mean nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results", help="folder for the rows")
    arguments = parser.parse_args()
    peer, effort = PEERS[arguments.name], Effort(arguments.quick)
    environment = Environment(arguments.name, peer.PACKAGES)
    try:
        rows = measure(effort, arguments.name, environment)
    except BenchError as error:
        print(f"{arguments.name}: {error}", file=sys.stderr)
        return 1
    print(format_rows(rows))
    if not effort.is_quick:
        origin = describe_origin(f"python -m bench.peers {arguments.name}", is_quick=False)
        write_rows(arguments.results / f"peer_{arguments.name}.json", rows, origin)
    return 0


def measure(effort: Effort, name: str, environment: Environment) -> list[Row]:
    """A row a load."""
    message = encode_tiny()
    with TemporaryDirectory() as made:
        folder = Path(made)
        save_tiny(folder / "models")
        with run_sluice(folder / "models", folder) as sluice, run_peer(name, environment, folder) as peer:
            for server in (sluice, peer):
                check_reply(server, message)
            return [measure_load(effort, environment, sluice, peer, message, folder, *load) for load in LOADS]


def measure_load(
    effort: Effort,
    environment: Environment,
    sluice: Server,
    peer: Server,
    message: bytes,
    folder: Path,
    clients: int,
    streams: int,
) -> Row:
    """The row of one load."""
    counts = (effort.pick(20_000, 1_000), effort.pick(10_000, 500))
    ours, theirs = effort.interleave(
        *(
            partial(server.measure_load, *prepare_load(server, message, folder), clients, streams, requests)
            for server, requests in zip((sluice, peer), counts, strict=True)
        )
    )
    figures = {f"peer_{name}": figure for name, figure in collect_figures(theirs).items()} | collect_figures(ours)
    figures["cpu_ratio"] = compare(*([each["cpu_us_per_request"] for each in side] for side in (theirs, ours)))
    version = environment.describe(PEERS[peer.name].PACKAGE)
    conditions = {"peer": version, "message_bytes": len(message), "load": f"{clients}×{streams}", "requests": counts}
    return Row(f"peer_{peer.name}", figures, conditions)


@contextmanager
def run_peer(name: str, environment: Environment, folder: Path) -> Iterator[Server]:
    """A peer with the perceptron, on the server's core."""
    peer = PEERS[name]
    (folder / name).mkdir()
    weights = {each.name: numpy_helper.to_array(each) for each in onnx_models.tiny().graph.initializer}
    np.savez(folder / "weights.npz", **weights)
    ports = find_free_ports("grpc", "spare")
    command = peer.prepare(environment, folder / "weights.npz", folder / name, ports["grpc"], ports["spare"])
    with run_server(name, command, folder, peer.READY) as (child, _):
        yield Server(name, child.pid, ports["grpc"])


def check_reply(server: Server, message: bytes) -> None:
    """Raise BenchError unless a server computes what NumPy does."""
    request = ModelInferRequest.FromString(message)
    weights = {each.name: numpy_helper.to_array(each) for each in onnx_models.tiny().graph.initializer}
    rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
    expected = np.maximum(rows @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]
    response = ModelInferResponse.FromString(server.call(message))
    given = (
        read_response(response).outputs["output"]
        if response.raw_output_contents
        else np.reshape(response.outputs[0].contents.fp32_contents, expected.shape)
    )
    if not np.allclose(given, expected, rtol=1e-4):
        raise BenchError(f"{server.name}: expected {expected}, given {given}")


if __name__ == "__main__":
    sys.exit(main())
