"""Inputs that are worth keeping: on disk as one file each, named by what is in it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

FAVOUR = 0.75


def read_inputs(folder: Path) -> list[bytes]:
    """The inputs of a folder, the smallest first; none when there is no such folder."""
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    return sorted((path.read_bytes() for path in files), key=lambda data: (len(data), data))


def write_input(folder: Path, data: bytes) -> Path:
    """Save an input; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


@dataclass
class Corpus:
    """The inputs of a search, and for each edge the smallest one that passes it in that way.

    Attributes
    ----------
    inputs : list of bytes
        In the order in which they were found.
    """

    inputs: list[bytes] = field(default_factory=list)
    _smallest: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _favoured: list[bytes] = field(default_factory=list)

    def add(self, data: bytes, passed: dict[int, int]) -> None:
        """Keep an input with the edges that it passes: edge to class."""
        self.inputs.append(data)
        for way in passed.items():
            if way not in self._smallest or len(data) < len(self._smallest[way]):
                self._smallest[way] = data
        self._favoured = []

    def favoured(self) -> list[bytes]:
        """Few inputs that together pass all that is known, small ones first."""
        if not self._favoured:
            self._favoured = sorted(set(self._smallest.values()), key=lambda data: (len(data), data))
        return self._favoured

    def choose(self, random: Random) -> bytes:
        """One input, mostly a favoured one, and of all others the newest mostly."""
        if self.favoured() and random.random() < FAVOUR:
            return random.choice(self.favoured())
        newest = int(random.expovariate(1 / 16))
        return self.inputs[-1 - newest] if newest < len(self.inputs) else random.choice(self.inputs)
