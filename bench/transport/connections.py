"""Few connections and many, with as many calls at a time in all: what a connection costs that is seldom used."""

from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_tiny, save_tiny
from bench.processes import raise_file_limit
from bench.rows import Goal, Row, compare
from bench.servers import TRANSPORT
from bench.transport.comparison import compare_servers, run_trio

IN_FLIGHT = 64
# Fewer calls come with a read than on few connections, so that each pays more for the system's part; the floor as well.
GOAL_GROWTH = 1.5


def measure(effort: Effort) -> list[Row]:
    """A row for few connections and one for many, in which `growth` is what the many cost beside the few."""
    raise_file_limit()
    counts = effort.pick((100, 5_000), (10, 50))
    message = encode_tiny()
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny(folder / "models")
        with run_trio(folder / "models", folder) as servers:
            few, many = (
                compare_servers(
                    effort, servers, message, percentiles=("p99",), connections=count, in_flight=IN_FLIGHT, streams=32
                )
                for count in counts
            )
    for side in ("", "floor_", "echo_"):
        figure = f"{side}cpu_us_per_request"
        many[f"{side}cpu_growth"] = compare(many[figure].repeats, few[figure].repeats)
    return [
        Row(
            "transport_connections",
            figures,
            {"transport": TRANSPORT, "model": "tiny", "connections": count, "in_flight": IN_FLIGHT},
            goals,
        )
        for count, figures, goals in zip(
            counts, (few, many), ([], [Goal("cpu_growth", at_most=GOAL_GROWTH)]), strict=True
        )
    ]
