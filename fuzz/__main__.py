"""`python -m fuzz [target …]`: searches for inputs that make the server misbehave, and runs single ones again."""

import argparse
import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path

from fuzz.catalogue import CATALOGUE
from fuzz.corpus import read_inputs, write_input
from fuzz.cover import Cover
from fuzz.edges import EdgeMap
from fuzz.search import Budget, Misbehaviour, Search
from fuzz.subject import Build, Subject

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
# Of a longer input only the file is named.
SHOWN_BYTES = 2048


def main() -> int:
    """Fuzz what is named, else everything; 1 when something was found."""
    arguments = parse_arguments()
    coverage = arguments.coverage and arguments.coverage.absolute()
    build = Build(arguments.tree.absolute(), tuple(map(Path.absolute, arguments.preload)), coverage)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if arguments.replay is not None:
            return replay(build, arguments.targets[0], read_replayed(arguments.replay), Path(folder))
        share = Budget(arguments.seconds / len(arguments.targets), arguments.runs)
        return sum(fuzz(build, name, share, arguments, Path(folder)) for name in arguments.targets) and 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition(":")[2].strip())
    parser.add_argument("targets", nargs="*", metavar="target", help=f"{', '.join(CATALOGUE)}; default: all")
    parser.add_argument("--tree", type=Path, default=FOLDER.parent, help="where the kernels are imported from")
    parser.add_argument("--preload", type=Path, action="append", default=[], help="a sanitizer's library")
    parser.add_argument("--coverage", type=Path, help="the library made from coverage.c")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together; 0 is without limit")
    parser.add_argument("--runs", type=int, default=0, help="of each target; 0 is without limit")
    parser.add_argument("--seed", type=int, default=1, help="the same one makes the same changes")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="inputs to begin with, a folder for each target")
    parser.add_argument("--keep", type=Path, help="where to save the inputs that together go nearly every way")
    parser.add_argument("--keep-most", type=int, default=20, help="how many of these, of each target")
    parser.add_argument("--findings", type=Path, default=Path("build/findings"), help="where to save what was found")
    parser.add_argument("--replay", metavar="FILE|HEX", help="run this input of the one target that is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(CATALOGUE):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(CATALOGUE)}")
    if arguments.replay is not None and len(arguments.targets) != 1:
        parser.error("--replay takes one target")
    arguments.targets = arguments.targets or list(CATALOGUE)
    return arguments


def read_replayed(given: str) -> bytes:
    """An input by its file, or in hexadecimal."""
    path = Path(given)
    return path.read_bytes() if len(given) < 4096 and path.is_file() else bytes.fromhex(given)


def replay(build: Build, name: str, data: bytes, folder: Path) -> int:
    """Run one input, and look it over for leaks; 1 when it shows something."""
    EdgeMap(folder / "edges")
    with Subject(build, CATALOGUE[name].target, folder) as subject:
        said = subject.run(data) or subject.run(data, is_leak_check=True) or subject.stop()
    print(said or "nothing")
    return 1 if said else 0


def fuzz(build: Build, name: str, share: Budget, arguments: argparse.Namespace, folder: Path) -> int:
    """Search one target; how many findings there were."""
    entry = CATALOGUE[name]
    edges = EdgeMap(folder / "edges")
    budget = Budget(share.seconds, share.runs)
    report = partial(report_finding, name, arguments.findings)
    with Subject(build, entry.target, folder) as subject:
        search = Search(subject, edges, entry.mutator, arguments.seed, report=report)
        with contextlib.suppress(KeyboardInterrupt):  # ends this search alone
            search.run([*read_inputs(arguments.corpus / name), *entry.make_seeds()], budget)
        if arguments.keep:
            for data in Cover(search.pass_edges, entry.mutator.split).choose(search.corpus, arguments.keep_most):
                write_input(arguments.keep / name, data)
        if said := subject.stop():
            search.findings.append(Misbehaviour(b"", said))
            report(search.findings[-1])
    print(
        f"{name}: {search.runs:,} executions, {search.runs / budget.elapsed():,.0f} a second; "
        f"{search.edges.count():,} edges, {len(search.corpus.inputs):,} inputs; {len(search.findings)} findings",
        flush=True,
    )
    return len(search.findings)


def report_finding(name: str, folder: Path, found: Misbehaviour) -> None:
    """Save an input that showed something, and say how to run it again."""
    path = write_input(folder / name, found.data)
    shown = found.data.hex() if len(found.data) <= SHOWN_BYTES else f"{len(found.data):,} bytes"
    print(f"\n{found.text}\n{path}: {shown}\nagain: sh .ci/fuzz {name} --replay {path}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
