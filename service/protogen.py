"""Makes service/pb from proto/: `python -m service.protogen`; with --check it compares instead and fails on drift."""

import argparse
import difflib
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GENERATED = ROOT / "service" / "pb"

PACKAGE_DOCSTRING = '"""Generated from proto/ by `python -m service.protogen`; never edited."""\n'
# protoc writes imports of siblings as if they lay on the path: `import a_pb2 as a__pb2`.
SIBLING_IMPORT = re.compile(r"^import (\w+_pb2) as (\w+)$", re.MULTILINE)


def generate(target: Path) -> None:
    """Write the generated modules and type stubs of every file of proto/ into `target`.

    Raises
    ------
    SystemExit
        grpcio-tools is not installed or protoc found an error, which it has printed.
    """
    try:
        from grpc_tools import protoc
    except ImportError:
        sys.exit("grpcio-tools is not installed: pip install 'sluice-serving[dev]'")
    sources = sorted(path.name for path in PROTO.glob("*.proto"))
    includes = [f"-I{PROTO}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *includes, *outputs, *sources]) != 0:
        sys.exit("protoc failed")
    for path in target.glob("*_pb2*.py*"):
        path.write_text(SIBLING_IMPORT.sub(r"from service.pb import \1 as \2", path.read_text()))
    (target / "__init__.py").write_text(PACKAGE_DOCSTRING)
    _drop_serviceless_stubs(target)


def _drop_serviceless_stubs(target: Path) -> None:
    """Remove the *_pb2_grpc.py of files that define no service: they hold nothing."""
    for path in target.glob("*_pb2_grpc.py"):
        if "Servicer" not in path.read_text():
            path.unlink()


def find_drift(fresh: Path, committed: Path) -> list[str]:
    """Lines of a unified diff from `committed` to `fresh`; empty when they are the same."""
    drift = []
    for name in sorted(_file_names(fresh) | _file_names(committed)):
        before, after = (_read_lines(folder / name) for folder in (committed, fresh))
        drift += difflib.unified_diff(before, after, f"committed/{name}", f"generated/{name}")
    return drift


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".py", ".pyi")}


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def main(arguments: list[str] | None = None) -> None:
    """Generate into service/pb, or compare with it and exit with 1 on drift."""
    parser = argparse.ArgumentParser(prog="python -m service.protogen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; print a diff and fail when one is needed")
    check = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        drift = find_drift(fresh, GENERATED)
        if check:
            sys.stdout.writelines(drift)
            sys.exit("service/pb is not what proto/ gives: run `python -m service.protogen`" if drift else 0)
        for path in GENERATED.glob("*.py*"):
            path.unlink()
        for path in fresh.iterdir():
            (GENERATED / path.name).write_text(path.read_text())


if __name__ == "__main__":
    main()
