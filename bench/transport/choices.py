"""What an operator can choose: models on workers only, and I/O threads that look for more before they sleep."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.rows import Row
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, run_sluice
from bench.transport.comparison import compare_servers

LOADS = ((1, 1), (8, 32))
SPIN_US = 50
CHOICES = {"workers": ("--inline=never",), "spinning": (f"--spin-us={SPIN_US}",)}


def measure(effort: Effort) -> list[Row]:
    """A row a load: the settings as they are, and `workers_…` and `spinning_…` beside them."""
    message = encode_tiny()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        repository = save_tiny(folder / "models").parents[2]
        sides = [run_sluice(repository, folder, options=TRANSPORT_OPTIONS)]
        for side, options in CHOICES.items():
            sides.append(run_sluice(repository, folder, name=side, options=(*TRANSPORT_OPTIONS, *options)))
        servers = [stack.enter_context(side) for side in sides]
        return [
            Row(
                "transport_choices",
                compare_servers(
                    effort, servers, message, percentiles=("p50", "p99"), connections=connections, streams=streams
                ),
                {"transport": TRANSPORT, "model": "tiny", "spin_us": SPIN_US, "load": f"{connections}×{streams}"},
                [],
            )
            for connections, streams in LOADS
        ]
