"""What the way through Envoy adds, with mTLS on both sides, to a direct mTLS call of the service."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.calls import Target, find_percentile, time_calls
from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.processes import HOST, BenchError, find_free_ports, list_children, read_cpu_ns, run_server
from bench.rows import Figure, Row, collect_figures
from bench.servers import RUN_CLI

# Calls that are under way at a time.
IN_FLIGHT = (1, 8)


class Deployment:
    """`sluice up`, running: its two processes and the two ways to the service."""

    def __init__(self, supervisor: int, state_folder: Path, ports: dict[str, int]):
        certificates = state_folder / "certs"
        self._processes = {}
        for child in list_children(supervisor):
            is_gateway = Path(f"/proc/{child}/comm").read_text().startswith("envoy")
            self._processes["gateway" if is_gateway else "service"] = child
        if len(self._processes) != 2:
            raise BenchError(f"expected the gateway and the service under sluice up, given {self._processes}")
        # The service takes calls from nobody but the gateway: the direct call uses its identity.
        self.direct = Target(
            f"{HOST}:{ports['grpc']}", certificates / "internal-ca.pem", certificates / "gateway-upstream"
        )
        self.through = Target(f"{HOST}:{ports['gateway']}", certificates / "gateway-ca.pem", certificates / "client")

    def measure(self, target: Target, message: bytes, calls: int, in_flight: int) -> dict[str, float]:
        """Latency, and CPU time a call of both processes."""
        before = {name: read_cpu_ns(pid) for name, pid in self._processes.items()}
        took_us = time_calls(target, message, calls=calls, in_flight=in_flight)
        cpu_us = {name: (read_cpu_ns(pid) - before[name]) / calls / 1000 for name, pid in self._processes.items()}
        return {
            "p50_us": find_percentile(took_us, 0.5),
            "p99_us": find_percentile(took_us, 0.99),
            "service_cpu_us_per_request": cpu_us["service"],
            "gateway_cpu_us_per_request": cpu_us["gateway"],
            "cpu_us_per_request": sum(cpu_us.values()),
        }


def measure(effort: Effort) -> list[Row]:
    """One row for calls one after another, one for several at a time."""
    message = encode_tiny()
    with TemporaryDirectory() as folder, run_deployment(Path(folder)) as deployment:
        return [measure_ways(effort, deployment, message, in_flight) for in_flight in IN_FLIGHT]


def measure_ways(effort: Effort, deployment: Deployment, message: bytes, in_flight: int) -> Row:
    """Both ways, and what one costs more than the other, pair by pair."""
    calls = effort.pick(4_000, 200)
    targets = (deployment.direct, deployment.through)
    direct, through = effort.interleave(
        *(lambda target=target: deployment.measure(target, message, calls, in_flight) for target in targets)
    )
    figures = {f"direct_{name}": figure for name, figure in collect_figures(direct).items()}
    figures |= {f"through_{name}": figure for name, figure in collect_figures(through).items()}
    for name in ("p50_us", "cpu_us_per_request"):
        pairs = zip(direct, through, strict=True)
        figures[f"added_{name}"] = Figure(tuple(ours[name] - theirs[name] for theirs, ours in pairs))
    conditions = {"model": "tiny", "message_bytes": len(message), "in_flight": in_flight, "calls": calls}
    return Row("gateway", figures, conditions)


@contextmanager
def run_deployment(folder: Path) -> Iterator[Deployment]:
    """Service and gateway under `sluice up`, both on the server's core."""
    save_tiny(folder / "models")
    state_folder = folder / "state"
    ports = find_free_ports("gateway", "operator", "grpc")
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    options += [f"--model-repository={folder / 'models'}", f"--state-dir={state_folder}"]
    with run_server("up", [sys.executable, "-u", "-c", RUN_CLI, "up", *options], folder, "Ctrl-C") as (child, _):
        yield Deployment(child.pid, state_folder, ports)
