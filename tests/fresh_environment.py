"""An environment that holds a wheel and what the wheel requires, but no compiler and nothing of the checkout."""

import subprocess
import sys
import venv
from importlib import metadata

from packaging.requirements import Requirement

INSTALL_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 60


class FreshEnvironment:
    """A virtual environment with a wheel in it and an empty folder to work in.

    What the wheel requires is not fetched: its distributions, and no others, are linked from the running environment.

    Parameters
    ----------
    extra
        Which of the wheel's extras is installed with it.
    """

    def __init__(self, folder, wheel, extra):
        self.folder = folder / "empty"
        self._programs = folder / "venv" / "bin"
        # No compiler is found here, nor anything that a variable of the tests' own environment would bring.
        self._environment = {"PATH": str(self._programs), "HOME": str(self.folder)}
        self.folder.mkdir()
        venv.create(folder / "venv")
        self.packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
        _link_requirements(wheel, extra, folder / "required")
        (self.packages / "required.pth").write_text(f"{folder / 'required'}\n")
        pip = [sys.executable, "-m", "pip", "--python", self._programs / "python"]
        # With no index, pip refuses what is not satisfied already.
        install = [*pip, "install", "--quiet", "--no-index", "--disable-pip-version-check", f"{wheel}[{extra}]"]
        subprocess.run(install, cwd=self.folder, env=self._environment, check=True, timeout=INSTALL_TIMEOUT_S)

    def start(self, program, *arguments, variables=(), **options):
        """Start an installed program in the empty folder, with no variables but these and the two it needs."""
        command = [self._programs / program, *map(str, arguments)]
        environment = self._environment | dict(variables)
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **options)

    def run(self, program, *arguments):
        """What an installed program prints; it must end with 0."""
        with self.start(program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            output, errors = process.communicate(timeout=COMMAND_TIMEOUT_S)
        assert process.returncode == 0, errors
        return output


def _link_requirements(wheel, extra, folder):
    """Link all that a wheel requires, and what that requires, into a folder, as if it were installed there."""
    folder.mkdir()
    (itself,) = metadata.distributions(path=[str(wheel)])
    for distribution in _find_required(itself, {extra}, {}).values():
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(distribution.locate_file(name))


def _find_required(distribution, extras, found):
    """Add the installed distributions that one requires to those found, by name and extras."""
    for requirement in map(Requirement, distribution.requires or ()):
        key = requirement.name, frozenset(requirement.extras)
        if key not in found and _applies(requirement, extras):
            found[key] = metadata.distribution(requirement.name)
            _find_required(found[key], requirement.extras, found)
    return found


def _applies(requirement, extras):
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})
