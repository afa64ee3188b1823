"""`python -m bench [name …]`: runs measurements, prints their figures, and writes their rows."""

import argparse
import importlib
import sys
from pathlib import Path

from bench import gpu, transport
from bench.effort import Effort
from bench.origin import describe_origin
from bench.processes import BenchError
from bench.rows import format_rows, write_rows

MEASUREMENTS = (
    "engine",
    "codec",
    "copy",
    "convolution",
    "delays",
    "grpc",
    "gateway",
    "direct",
    "limits",
    "memory",
    "loading",
    "lazy",
    "ensemble",
    "transport",
)
# Needs a machine that few have, and is made only when it is named.
NAMED_ONLY = ("gpu",)
# Of a measurement that takes long, and can be made in parts.
PARTS = tuple(f"{whole.__name__.removeprefix('bench.')}.{part}" for whole in (transport, gpu) for part in whole.PARTS)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what is named, else everything; 1 when a measurement could not be made."""
    arguments = parse_arguments()
    effort = Effort(arguments.quick)
    failed = 0
    for name in arguments.names or MEASUREMENTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows = importlib.import_module(f"bench.{name}").measure(effort)
        except BenchError as error:
            print(f"{name}: {error}\n", file=sys.stderr)
            failed += 1
            continue
        print(format_rows(rows), end="\n\n", flush=True)
        if folder := arguments.results or (None if effort.is_quick else RESULTS):
            command = f"python -m bench {name}" + (" --quick" if effort.is_quick else "")
            write_rows(folder / f"{name}.json", rows, describe_origin(command, is_quick=effort.is_quick))
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition(":")[2].strip())
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"{', '.join((*MEASUREMENTS, *NAMED_ONLY, *PARTS))}; default: all but gpu",
    )
    parser.add_argument("--quick", action="store_true", help="show that everything runs; the figures mean nothing")
    parser.add_argument("--results", type=Path, help="folder for the rows; default: bench/results, none with --quick")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*MEASUREMENTS, *NAMED_ONLY, *PARTS}:
        parser.error(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
