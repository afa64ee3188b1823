"""Inputs that are worth keeping: on disk as one file each, named by what is in it."""

import hashlib
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


class Corpus:
    """The inputs of a search, and the ways that each goes: edges with the class of how often each is passed.

    Attributes
    ----------
    inputs : list of bytes
        In the order in which they were found.
    edges : list of frozenset of int
        What each of them passes.
    """

    def __init__(self):
        self.inputs: list[bytes] = []
        self.edges: list[frozenset[int]] = []
        self._smallest: dict[tuple[int, int], bytes] = {}
        self._favoured: list[bytes] = []

    def add(self, data: bytes, passed: dict[int, int]) -> None:
        """Keep an input with the edges that it passes: edge to class."""
        self.inputs.append(data)
        self.edges.append(frozenset(passed))
        for way in passed.items():
            if way not in self._smallest or len(data) < len(self._smallest[way]):
                self._smallest[way] = data
        self._favoured = []

    def choose(self, random: Random) -> bytes:
        """One input, mostly the smallest that goes some way, and of all others the newest mostly."""
        if self._smallest and random.random() < FAVOUR:
            self._favoured = self._favoured or list(dict.fromkeys(self._smallest.values()))
            return random.choice(self._favoured)
        newest = int(random.expovariate(1 / 16))
        return self.inputs[-1 - newest] if newest < len(self.inputs) else random.choice(self.inputs)
