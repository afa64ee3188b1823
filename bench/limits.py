"""What limits cost at the gateway, beside one without: its own, and those that the limit service counts."""

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.calls import Target, find_percentile, time_calls
from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.processes import HOST, BenchError, find_free_ports, list_children, read_cpu_ns, run_server
from bench.rows import Row, collect_figures, compare
from bench.servers import RUN_CLI
from service.deployment import Deployment, Endpoint, Version
from service.deployment_file import format_deployment
from service.limits import GLOBAL, LOCAL, Limits, LimitService, RateLimit

IN_FLIGHT = 8
READY = "Ctrl-C"
# So many that none is refused.
PLENTY = {"requests": 1_000_000, "per": "second", "burst": 1_000_000}


@dataclasses.dataclass(frozen=True)
class Way:
    """One gateway, and who counts for it, if anybody does."""

    target: Target
    gateway: int
    counter: int | None = None

    def measure(self, message: bytes, calls: int) -> dict[str, float]:
        """Latency, and CPU time a call of the gateway and of who counts."""
        pids = [self.gateway, *([self.counter] if self.counter else [])]
        before = [read_cpu_ns(pid) for pid in pids]
        took_us = time_calls(self.target, message, calls=calls, in_flight=IN_FLIGHT)
        cpu_us = [(read_cpu_ns(pid) - start) / calls / 1000 for pid, start in zip(pids, before, strict=True)]
        figures = {"p50_us": find_percentile(took_us, 0.5), "gateway_cpu_us_per_request": cpu_us[0]}
        return figures | ({"counter_cpu_us_per_request": cpu_us[1]} if self.counter else {})


def measure(effort: Effort) -> list[Row]:
    """One row: all ways in turns, and the gateway's CPU time beside that without limits."""
    message, calls = encode_tiny(), effort.pick(3_000, 100)
    with TemporaryDirectory() as name, run_ways(Path(name)) as ways:
        found = effort.interleave(*(lambda way=way: way.measure(message, calls) for way in ways.values()))
    results = dict(zip(ways, found, strict=True))
    figures = {
        f"{way}_{figure}": values
        for way, repeats in results.items()
        for figure, values in collect_figures(repeats).items()
    }
    plain = [repeat["gateway_cpu_us_per_request"] for repeat in results["plain"]]
    for way, repeats in results.items():
        if way != "plain":
            ours = [repeat["gateway_cpu_us_per_request"] for repeat in repeats]
            figures[f"{way}_gateway_cpu_ratio"] = compare(ours, plain)
    conditions = {"model": "tiny", "message_bytes": len(message), "in_flight": IN_FLIGHT, "calls": calls}
    return [Row("limits", figures, conditions)]


@contextlib.contextmanager
def run_ways(folder: Path) -> Iterator[dict[str, Way]]:
    """A service, and gateways before it by name; with Redis only where it is installed."""
    save_tiny(folder / "models")
    ports = find_free_ports("gateway", "operator", "grpc")
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    options += [f"--model-repository={folder / 'models'}", f"--state-dir={folder / 'state'}"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(run_server("up", [*_cli("up"), *options], folder, READY))
        plain = Deployment(
            models={"tiny": {1: Version(1, (Endpoint(HOST, ports["grpc"]),))}},
            gateway=Endpoint(HOST, 1),
            operator=Endpoint(HOST, 2),
            certificates=folder / "state" / "certs",
        )
        ways = {
            "plain": _run_gateway(stack, folder, "plain", plain, None),
            "local": _run_gateway(stack, folder, "local", plain, Limits(rates=_list_rates(LOCAL))),
            "memory": _run_counted(stack, folder, "memory", plain),
        }
        if server := shutil.which("redis-server"):
            socket = folder / "redis.sock"
            command = [server, "--port", "0", "--unixsocket", socket, "--save", ""]
            stack.enter_context(run_server("redis", command, folder, "ready to accept connections"))
            ways["redis"] = _run_counted(stack, folder, "redis", plain, f"--redis=unix://{socket}")
        yield ways


def _list_rates(scope: str) -> tuple[RateLimit, ...]:
    """One limit, of each subject and model."""
    return (RateLimit(name="plenty", by=("subject", "model"), scope=scope, **PLENTY),)


def _run_counted(stack: contextlib.ExitStack, folder: Path, name: str, plain: Deployment, *options: str) -> Way:
    """A gateway with a limit service of its own."""
    endpoint = Endpoint(HOST, find_free_ports("limits")["limits"])
    limits = Limits(rates=_list_rates(GLOBAL), service=LimitService(endpoints=(endpoint,), timeout_ms=1000))
    file = folder / f"{name}-limits.yaml"
    file.write_text(format_deployment(dataclasses.replace(plain, limits=limits)))
    command = [*_cli("limits", "serve", str(file)), f"--listen={endpoint}", *options]
    child, _ = stack.enter_context(run_server(f"{name}-limits", command, folder, "limits    "))
    return dataclasses.replace(_run_gateway(stack, folder, name, plain, limits), counter=child.pid)


def _run_gateway(stack: contextlib.ExitStack, folder: Path, name: str, plain: Deployment, limits: Limits | None) -> Way:
    ports = {role: Endpoint(HOST, port) for role, port in find_free_ports("gateway", "operator").items()}
    file = folder / f"{name}.yaml"
    file.write_text(format_deployment(dataclasses.replace(plain, limits=limits, **ports)))
    command = [*_cli("gateway", "run", str(file)), f"--state-dir={folder / f'state-{name}'}"]
    child, _ = stack.enter_context(run_server(name, command, folder, READY))
    envoys = list_children(child.pid)
    if len(envoys) != 1:
        raise BenchError(f"expected Envoy alone under sluice gateway run, given {len(envoys)} processes")
    certificates = plain.certificates
    target = Target(str(ports["gateway"]), certificates / "gateway-ca.pem", certificates / "client")
    return Way(target, envoys[0])


def _cli(*words: str) -> list[str]:
    return [sys.executable, "-u", "-c", RUN_CLI, *words]
