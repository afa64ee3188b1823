"""Keeps the memory that models take within a bound: idle ones leave it, the least recently used first."""

import logging
import threading
from collections.abc import Callable, Collection

from kernels.engine import Engine
from service.allocator import read_allocated_bytes, release_memory
from service.lazy_lifecycle import LazyLifecycle
from service.logs import LineLimit

# Freed memory is given back to the system when so much of it has come together: that takes milliseconds.
RELEASED_BYTES = 16 * 2**20
WARNINGS_PER_SECOND = 1

logger = logging.getLogger(__name__)


class MemoryBudget:
    """Measures, and takes models out of memory; safe to use from any thread.

    What models take is what the process has allocated beyond what it had before its first model: weights, arenas of
    ONNX Runtime's, which grow with the first runs, and also messages under way. The resident size would be the wrong
    measure: freed memory of a small model mostly stays resident, so that one model after another would go for nothing.

    Parameters
    ----------
    budget_bytes
        0 is without limit.
    pinned
        Names of models that stay.
    measure
        What the process has allocated now, in bytes.
    """

    def __init__(
        self,
        engine: Engine,
        lifecycle: LazyLifecycle,
        budget_bytes: int,
        pinned: Collection[str] = (),
        measure: Callable[[], int] = read_allocated_bytes,
    ):
        self._engine = engine
        self._lifecycle = lifecycle
        self._pinned = frozenset(pinned)
        self._measure = measure
        self._lock = threading.Lock()
        self._before = measure()
        self._freed_bytes = 0
        self._log_limit = LineLimit(WARNINGS_PER_SECOND)
        self.budget_bytes = budget_bytes
        self.evictions = 0

    def read_used_bytes(self) -> int:
        """What models take now."""
        return max(0, self._measure() - self._before)

    def make_room(self, wanted_bytes: int = 0, *, keep: str = "") -> None:
        """Have idle models leave memory until `wanted_bytes` more fit into the budget, or none is left that may go.

        Parameters
        ----------
        keep
            A model that stays: the one for which room was made. Without one, and if nothing more is wanted, it is the
            one that was used last: it would leave memory for nobody.
        """
        if self.budget_bytes == 0:
            return
        with self._lock:
            used = self.read_used_bytes()
            if used + wanted_bytes <= self.budget_bytes:
                return
            kept = {keep or ("" if wanted_bytes else self._find_latest())}
            # Anew after each: with an ensemble that goes, the models of its steps may.
            while idle := self._list_idle(kept):
                used = self._evict(idle[0], used)
                if used + wanted_bytes <= self.budget_bytes:
                    return
                kept.add(idle[0])
            if used > self.budget_bytes and self._log_limit.allows():
                logger.warning("memory budget exceeded", extra={"used_bytes": used, "budget_bytes": self.budget_bytes})

    def _find_latest(self) -> str:
        """The model that was used last, if there is any."""
        use = self._engine.read_use()
        return max(use, key=lambda name: use[name][0], default="")

    def _list_idle(self, kept: Collection[str]) -> list[str]:
        """Models that may go, the least recently used first."""
        idle = [
            (last_used_ns, name)
            for name, (last_used_ns, is_used) in self._engine.read_use().items()
            if not is_used and name not in self._pinned and name not in kept
        ]
        return [name for _, name in sorted(idle)]

    def _evict(self, name: str, used: int) -> int:
        """Have one model leave memory, unless somebody loads it just now; what is used afterwards."""
        if not self._lifecycle.rest(name):
            return used
        self.evictions += 1
        left = self.read_used_bytes()
        self._freed_bytes += max(0, used - left)
        if self._freed_bytes >= RELEASED_BYTES:
            self._freed_bytes = 0
            release_memory()
        return left
