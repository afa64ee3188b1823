"""The map in which a process under test counts the edges that it passes (coverage.c), and which of them are known."""

import mmap
from pathlib import Path

import numpy as np

MAP_BYTES = 1 << 17
# A count is told from others by its class alone: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more.
CLASS_STARTS = (1, 2, 3, 4, 8, 16, 32, 128)
CLASSES = np.zeros(256, np.uint8)
for _number, _start in enumerate(CLASS_STARTS):
    CLASSES[_start:] = 1 << _number


class EdgeMap:
    """Counts of one execution after another, shared with the process that makes them through a file.

    Attributes
    ----------
    known : numpy.ndarray
        For each edge the classes of counts that were ever kept, one bit each.
    """

    def __init__(self, path: Path):
        path.write_bytes(bytes(MAP_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), MAP_BYTES)
        self._counts = np.frombuffer(self._map, np.uint8)
        self.known = np.zeros(MAP_BYTES, np.uint8)

    def clear(self) -> None:
        """Forget the last execution."""
        self._counts[:] = 0

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The edges of the last execution, and the class of each one's count as a bit."""
        # A copy: threads of the process count on.
        counts = self._counts.copy()
        # Eight at a time: nearly all are 0.
        words = np.flatnonzero(counts.view(np.uint64))
        rows, columns = np.nonzero(counts.reshape(-1, 8)[words])
        passed = words[rows] * 8 + columns
        return passed, CLASSES[counts[passed]]

    def read_new(self) -> dict[int, int]:
        """What the last execution did that none before it had: edge to bit."""
        passed, bits = self.read()
        fresh = np.flatnonzero(bits & ~self.known[passed])
        return dict(zip(passed[fresh].tolist(), bits[fresh].tolist(), strict=True))

    def keep(self, seen: dict[int, int]) -> None:
        """Know these from now on."""
        for edge, bit in seen.items():
            self.known[edge] |= bit

    def count(self) -> int:
        """How many edges are known."""
        return int(np.count_nonzero(self.known))
