"""mTLS on connections that stand, beside plain text: what encryption adds to a call."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.certificates import Certificates
from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Figure, Goal, Row
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, run_echo, run_sluice
from bench.transport.comparison import compare_servers

LOAD = {"connections": 8, "streams": 32}
# A turn's replies leave as one record, so that a call takes a share of a record's cost.
GOAL_PLAIN_RATIO = 2.0


def measure(effort: Effort) -> list[Row]:
    """One row: ours over mTLS, in plain text, and grpcio's echo over mTLS."""
    message = encode_tiny()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        certificates = Certificates.make(folder / "certs")
        repository = save_tiny(folder / "models").parents[2]
        sides = (
            run_sluice(repository, folder, certificates=certificates, options=TRANSPORT_OPTIONS),
            run_sluice(repository, folder, name="plain", options=TRANSPORT_OPTIONS),
            run_echo(folder, certificates=certificates),
        )
        servers = [stack.enter_context(side) for side in sides]
        figures = compare_servers(effort, servers, message, **LOAD)
    pairs = zip(figures["cpu_us_per_request"].repeats, figures["plain_cpu_us_per_request"].repeats, strict=True)
    figures["added_cpu_us_per_request"] = Figure(tuple(ours - plain for ours, plain in pairs))
    load = f"{LOAD['connections']}×{LOAD['streams']}"
    conditions = {"transport": TRANSPORT, "model": "tiny", "message_bytes": len(message), "load": load}
    return [Row("transport_mtls", figures, conditions, [Goal("plain_cpu_ratio", at_most=GOAL_PLAIN_RATIO)])]
