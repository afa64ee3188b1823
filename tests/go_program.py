"""Programs of other people that the tests run: found if installed, else built by Go, once, into the user's cache."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD_TIMEOUT_S = 240


@dataclass(frozen=True)
class GoProgram:
    """What a program is called here, and the package, with its version, that Go builds it from."""

    name: str
    package: str

    def find(self):
        """Where the program is; without it and without Go the test is skipped."""
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sluice-tests"
        places = os.pathsep.join([os.environ.get("PATH", ""), str(Path.home() / "go/bin"), str(cache)])
        if found := shutil.which(self.name, path=places):
            return found
        go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin"]))
        if not go:
            pytest.skip(f"neither {self.name} nor Go, which builds it, is installed")
        if reason := self._build(go, cache):
            pytest.skip(f"{self.name} is not installed and Go cannot build it: {reason}")
        return str(cache / self.name)

    def _build(self, go, cache):
        """Build into the cache, all at once, since other runs may look there meanwhile; returns why not, or nothing."""
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            try:
                subprocess.run(
                    [go, "install", self.package],
                    env=os.environ | {"GOBIN": folder},
                    capture_output=True,
                    text=True,
                    timeout=BUILD_TIMEOUT_S,
                    check=True,
                )
            except subprocess.TimeoutExpired:
                return f"not done after {BUILD_TIMEOUT_S} s"
            except subprocess.CalledProcessError as error:
                return error.stderr.strip()[-300:]
            # Go names a program after the last folder of its package.
            next(Path(folder).iterdir()).replace(cache / self.name)
        return ""
