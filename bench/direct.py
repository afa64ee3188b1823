"""What a call costs all processes that take part, by xDS straight to the service and by way of Envoy, over mTLS."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.direct_loop import DirectLoop
from bench.effort import Effort
from bench.models import TINY_MODEL, encode_tiny, save_tiny
from bench.processes import HOST, BenchError, find_free_ports, list_children, read_cpu_ns, run_server
from bench.rows import Row, collect_figures, compare
from bench.servers import READY, RUN_CLI
from certs import ensure_certificates
from certs.files import replace_file
from certs.identities import AUTHORITIES, CLIENT_URI, GATEWAY_URI
from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint, Version
from service.deployment_file import format_deployment
from service.direct_routes import describe_client

# Calls that are under way at a time.
IN_FLIGHT = (1, 8)
# By xDS, by way of Envoy, and by an address that the client knows.
WAYS = ("direct", "through", "known")


class Fleet:
    """One set of processes: the service, its gateway, the control plane that both ways follow, and the client."""

    def __init__(self, pids: dict[str, int], client: DirectLoop):
        self._pids, self._client = pids, client

    def measure(self, way: str, calls: int, in_flight: int) -> dict[str, float]:
        """Latency, and CPU time a call of each process."""
        before = {name: read_cpu_ns(pid) for name, pid in self._pids.items()}
        took = self._client.run(way=way, calls=calls, in_flight=in_flight)
        cpu_us = {name: (read_cpu_ns(pid) - before[name]) / calls / 1000 for name, pid in self._pids.items()}
        cpu_us["client"] = took["cpu_ns"] / calls / 1000
        return {
            "p50_us": took["p50_us"],
            "p99_us": took["p99_us"],
            **{f"{name}_cpu_us_per_request": cost for name, cost in cpu_us.items()},
            "cpu_us_per_request": sum(cpu_us.values()),
        }


def measure(effort: Effort) -> list[Row]:
    """One row for calls one after another, one for several at a time."""
    with TemporaryDirectory() as folder, run_fleet(Path(folder)) as fleet:
        return [measure_ways(effort, fleet, in_flight) for in_flight in IN_FLIGHT]


def measure_ways(effort: Effort, fleet: Fleet, in_flight: int) -> Row:
    """All ways in turn, and their ratios pair by pair."""
    calls = effort.pick(4_000, 200)
    found = effort.interleave(*(lambda way=way: fleet.measure(way, calls, in_flight) for way in WAYS))
    results = dict(zip(WAYS, found, strict=True))
    figures = {f"{way}_{name}": figure for way in WAYS for name, figure in collect_figures(results[way]).items()}
    for other in WAYS[1:]:
        for name, short in (("cpu_us_per_request", "cpu"), ("p50_us", "p50")):
            pair = [[repeat[name] for repeat in results[way]] for way in (WAYS[0], other)]
            figures[f"{short}_ratio_to_{other}"] = compare(*pair)
    conditions = {"model": TINY_MODEL, "message_bytes": len(encode_tiny()), "in_flight": in_flight, "calls": calls}
    return Row("direct", figures, conditions)


@contextmanager
def run_fleet(folder: Path) -> Iterator[Fleet]:
    """All of it, the client on the load's core and the others on the server's."""
    save_tiny(folder / "models")
    certificates = folder / "certs"
    ensure_certificates(certificates)
    replace_file(
        certificates / "both.pem", b"".join((certificates / f"{name}.pem").read_bytes() for name in AUTHORITIES)
    )
    ports = {
        name: Endpoint(HOST, port)
        for name, port in find_free_ports("gateway", "operator", "control", "service").items()
    }
    file = folder / "deployment.yaml"
    file.write_text(format_deployment(describe_deployment(certificates, **ports)))
    with ExitStack() as stack:
        pids = {
            "service": _run(stack, folder, READY, "serve", *_serve_options(folder, ports["service"])),
            "control": _run(
                stack, folder, "Ctrl-C", "control", "serve", str(file), f"--state-dir={folder / 'control'}"
            ),
        }
        options = [
            f"--control={ports['control']}",
            f"--certificates={certificates}",
            f"--state-dir={folder / 'gateway'}",
        ]
        supervisor = _run(stack, folder, "Ctrl-C", "gateway", "run", *options)
        pids["gateway"] = _find_envoy(supervisor)
        client = stack.enter_context(DirectLoop(describe_ways(folder, certificates, ports)))
        yield Fleet(pids, client)


def describe_deployment(certificates: Path, *, service: Endpoint, control: Endpoint, **ports: Endpoint) -> Deployment:
    """One version of one model, for gateways and for clients."""
    settings = ControlSettings(listen=control, clients=(CLIENT_URI,), direct=(TINY_MODEL,))
    models = {TINY_MODEL: {1: Version(1, (service,))}}
    return Deployment(models=models, certificates=certificates, control=settings, **ports)


def describe_ways(folder: Path, certificates: Path, ports: dict[str, Endpoint]) -> dict[str, Any]:
    """For the client: its bootstrap file, and how it calls by each way."""
    names = {"certificate": "client.pem", "key": "client.key", "authority": "internal-ca.pem"}
    files = {name: certificates / file for name, file in names.items()}
    bootstrap = folder / "bootstrap.json"
    bootstrap.write_text(describe_client(ports["control"], "bench", files))
    return {
        "bootstrap": str(bootstrap),
        "direct": f"xds:///{TINY_MODEL}",
        "known": [str(ports["service"]), str(files["authority"]), str(certificates / "client")],
        "through": [str(ports["gateway"]), str(certificates / "gateway-ca.pem"), str(certificates / "client")],
    }


def _serve_options(folder: Path, endpoint: Endpoint) -> list[str]:
    certificates = folder / "certs"
    options = [f"--model-repository={folder / 'models'}", f"--host={endpoint.host}", f"--grpc-port={endpoint.port}"]
    options += [f"--tls-cert={certificates / 'service.pem'}", f"--tls-key={certificates / 'service.key'}"]
    options += [f"--tls-client-ca={certificates / 'both.pem'}"]
    return [*options, f"--allowed-client={GATEWAY_URI}", f"--allowed-client={CLIENT_URI}"]


def _run(stack: ExitStack, folder: Path, ready: str, *arguments: str) -> int:
    command = [sys.executable, "-u", "-c", RUN_CLI, *arguments]
    child, _ = stack.enter_context(run_server(arguments[0], command, folder, ready))
    return child.pid


def _find_envoy(supervisor: int) -> int:
    for child in list_children(supervisor):
        if Path(f"/proc/{child}/comm").read_text().startswith("envoy"):
            return child
    raise BenchError("expected Envoy under sluice gateway run, given none")
