"""What the service's own check of the policy adds to a call over mTLS: of a gateway's callers, and of direct ones."""

import base64
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.certificates import Certificates
from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Figure, Row, collect_figures
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, prepare_load, run_sluice
from bench.transport.comparison import DURATION_S, QUICK_DURATION_S, measure_server
from certs.identities import CLIENT_URI, GATEWAY_URI

LOADS = ((4, 8), (8, 32))
CLAIMS = {
    "iss": "https://issuer.example.org/",
    "aud": "sluice",
    "sub": "3f1c9f0e-7d3d-4a6e-9e55-6d6b1f0f7a11",
    "exp": 1893456000,
    "iat": 1893452400,
    "scope": "infer metadata",
    "realm_access": {"roles": ["caller", "reader"]},
}
TOKEN = base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip("=")
# As the gateway sends them, whoever receives them.
HEADERS = (
    f"x-forwarded-client-cert: By={GATEWAY_URI};Hash={'0' * 64};URI={CLIENT_URI}",
    f"sluice-token: {TOKEN}",
)
POLICY = f"""\
access:
  roles:
    caller: {{models: ["tiny"], actions: [infer]}}
  grants:
  - {{role: caller, certificates: ["{CLIENT_URI}", "{GATEWAY_URI}"]}}
"""


def measure(effort: Effort) -> list[Row]:
    """A row a load: a server without a policy, one that believes a gateway, and one that takes it for a client."""
    message = encode_tiny()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        certificates = Certificates.make(folder / "certs")
        repository = save_tiny(folder / "models").parents[2]
        policy = folder / "deployment.yaml"
        policy.write_text(POLICY)
        choices = {
            "open": [],
            "forwarded": [f"--policy={policy}", f"--gateway={GATEWAY_URI}"],
            "direct": [f"--policy={policy}"],
        }
        servers = {
            name: stack.enter_context(
                run_sluice(
                    repository, folder, name=name, certificates=certificates, options=[*TRANSPORT_OPTIONS, *options]
                )
            )
            for name, options in choices.items()
        }
        files = prepare_load(servers["open"], message, folder)
        return [measure_load(effort, servers, files, len(message), *load) for load in LOADS]


def measure_load(
    effort: Effort,
    servers: dict[str, Server],
    files: tuple[Path, int],
    message_bytes: int,
    connections: int,
    streams: int,
) -> Row:
    """The row of one load: the figures of each server in turn, and what the others take above the first."""
    duration_s = effort.pick(DURATION_S, QUICK_DURATION_S)
    load = {"duration_s": duration_s, "connections": connections, "streams": streams, "headers": HEADERS}
    measures = [partial(measure_server, server, *files, (), load) for server in servers.values()]
    taken = dict(zip(servers, map(collect_figures, effort.interleave(*measures)), strict=True))
    figures = {f"{name}_{figure}": value for name, found in taken.items() for figure, value in found.items()}
    open_cpu = taken["open"]["cpu_us_per_request"].repeats
    for name in ("forwarded", "direct"):
        pairs = zip(taken[name]["cpu_us_per_request"].repeats, open_cpu, strict=True)
        figures[f"{name}_added_cpu_us"] = Figure(tuple(theirs - ours for theirs, ours in pairs))
    conditions = {
        "transport": TRANSPORT,
        "model": "tiny",
        "message_bytes": message_bytes,
        "load": f"{connections}×{streams}",
        "header_bytes": sum(map(len, HEADERS)),
    }
    return Row("transport_policy", figures, conditions)
