"""A target whose bug is known: the library that the variable PLANTED names, made from planted.c."""

import ctypes
import os

from fuzz.finding import Finding


class PlantedTarget:
    """Reads an input."""

    def __init__(self):
        self._library = ctypes.CDLL(os.environ["PLANTED"])

    def run(self, data: bytes) -> None:
        """Run one input."""
        if data == b"promise":
            raise Finding("a promise was broken")
        self._library.read_input(data, ctypes.c_size_t(len(data)))

    def close(self) -> None:
        """Have nothing to close."""
