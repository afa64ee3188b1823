"""A virtual environment for each peer, since their dependencies and ours exclude each other."""

import shutil
import subprocess
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.origin import ROOT

FOLDER = ROOT / "build" / "peers"


class Environment:
    """The environment of a peer, made when it is missing."""

    def __init__(self, name: str, packages: tuple[str, ...]):
        self.folder = FOLDER / name / "venv"
        done = FOLDER / name / "installed"
        if not done.exists() or done.read_text() != "\n".join(packages):
            print(f"Installing {', '.join(packages)} into {self.folder.relative_to(ROOT)} ...", flush=True)
            venv.create(self.folder, with_pip=True, clear=True)
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *packages], check=True)
            done.write_text("\n".join(packages))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return next(self.folder.glob("lib/python3.*/site-packages"))

    def describe(self, package: str) -> str:
        """Name and version of a package in it."""
        read = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run([self.python, "-c", read], check=True, capture_output=True, text=True)
        return f"{package} {done.stdout.strip()}"


def with_variables(variables: Mapping[str, str | Path], command: Sequence[str | Path]) -> list[str | Path]:
    """A command that runs another one with some environment variables, in the same process."""
    return [shutil.which("env"), *(f"{name}={value}" for name, value in variables.items()), *command]
