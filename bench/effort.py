"""How much work a measurement does: all of it, or so little that it only shows that it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How long and how often to measure."""

    is_quick: bool = False

    def pick(self, full: T, quick: T) -> T:
        """A count, of requests, runs or turns; or a time."""
        return quick if self.is_quick else full

    @property
    def repeats(self) -> int:
        """How often everything is measured; the warm-up comes on top."""
        return self.pick(7, 2)

    def interleave(self, *measures: Callable[[], T]) -> list[list[T]]:
        """Run each once to warm up, then A B … A B …; the results of each, in the order of `measures`."""
        for measure in measures:
            measure()
        results = [[] for _ in measures]
        for _ in range(self.repeats):
            for measure, found in zip(measures, results, strict=True):
                found.append(measure())
        return results
