"""The search: change an input, run it, keep it when it went a way that none before it had."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from fuzz.catalogue import Mutator
from fuzz.corpus import Corpus
from fuzz.edges import EdgeMap
from fuzz.subject import Subject

CHANGES_OF_ONE = 24
# A way that is not gone again is chance: of threads, of the clock.
CONFIRMATIONS = 2


@dataclass(frozen=True)
class Misbehaviour:
    """An input and what it showed."""

    data: bytes
    text: str


@dataclass
class Budget:
    """How long a search goes on, whichever ends first; 0 is without limit."""

    seconds: float = 0
    runs: int = 0
    started: float = field(default_factory=time.monotonic)

    def is_spent(self, runs: int) -> bool:
        """Whether it ends after so many runs."""
        return bool((self.runs and runs >= self.runs) or (self.seconds and self.elapsed() >= self.seconds))

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


class Search:
    """One target's search.

    Parameters
    ----------
    report
        Is called for each kind of finding, when it is found.
    max_findings
        Of different kinds; the search ends with the last.

    Attributes
    ----------
    findings : list of Misbehaviour
        One for each kind.
    runs : int
        Executions so far.
    """

    def __init__(
        self,
        subject: Subject,
        edges: EdgeMap,
        mutator: Mutator,
        seed: int,
        *,
        report: Callable[[Misbehaviour], None] = lambda found: None,
        max_findings: int = 5,
    ):
        self._subject = subject
        self._mutator = mutator
        self._random = Random(seed)
        self._report = report
        self._max_findings = max_findings
        self._kinds: set[str] = set()
        self.edges = edges
        self.corpus = Corpus()
        self.findings: list[Misbehaviour] = []
        self.runs = 0

    def run(self, inputs: list[bytes], budget: Budget) -> None:
        """Try these inputs, then what becomes of them."""
        for data in inputs:
            self._try(data)
        if not self.corpus.inputs:
            self.corpus.add(b"", {})
        while not self._is_over(budget):
            chosen = self.corpus.choose(self._random)
            for _ in range(CHANGES_OF_ONE):
                if self._is_over(budget):
                    break
                other = self._random.choice(self.corpus.inputs)
                self._try(self._mutator.mutate(chosen, other, self._random))

    def pass_edges(self, data: bytes) -> frozenset[int]:
        """Run an input once more; the edges that it passes, none when it shows something."""
        return frozenset(self._passed()) if self._execute(data) else frozenset()

    def _is_over(self, budget: Budget) -> bool:
        return len(self.findings) >= self._max_findings or budget.is_spent(self.runs)

    def _try(self, data: bytes) -> None:
        if not self._execute(data):
            return
        fresh = self.edges.read_new()
        if not fresh:
            return
        passed = self._passed()
        self.edges.keep(fresh)
        if self._confirm(data, fresh) and self._execute(data, is_leak_check=True):
            self.corpus.add(data, passed)

    def _passed(self) -> dict[int, int]:
        edges, bits = self.edges.read()
        return dict(zip(edges.tolist(), bits.tolist(), strict=True))

    def _confirm(self, data: bytes, fresh: dict[int, int]) -> bool:
        """Whether an input goes some of its new ways each time."""
        steady = set(fresh.items())
        for _ in range(CONFIRMATIONS):
            if not self._execute(data):
                return False
            steady &= self._passed().items()
        return bool(steady)

    def _execute(self, data: bytes, *, is_leak_check: bool = False) -> bool:
        """Run an input; False when it showed something."""
        self.runs += 1
        self.edges.clear()
        text = self._subject.run(data, is_leak_check=is_leak_check)
        if not text:
            return True
        # What it has done to its process must not show in others.
        self._subject.stop()
        if (kind := kind_of(text)) not in self._kinds:
            self._kinds.add(kind)
            self.findings.append(Misbehaviour(data, text))
            self._report(self.findings[-1])
        return False


def kind_of(text: str) -> str:
    """What tells one finding from another: a sanitizer's summary, else the first line without its numbers."""
    for line in text.splitlines():
        if line.startswith("SUMMARY:") or "runtime error:" in line:
            return line
    return "".join(character for character in text.partition("\n")[0] if not character.isdigit())
