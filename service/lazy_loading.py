"""Loads models for the requests that wait for them, and those that failed again after a while."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from kernels.engine import Engine
from service.exposition import Family
from service.lazy_lifecycle import LazyLifecycle
from service.lifecycle import LoadError
from service.memory_budget import MemoryBudget
from service.status import NotFoundError, UnavailableError
from service.version_loader import PARALLEL_SESSIONS

# How long a thread waits for requests before it looks for something else to do, in seconds.
LOOK_S = 1.0
# From a failed load to the next, which no request brings about: each failure in a row doubles it.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
# Each with its kind and its meaning, in the order of LazyLoading.describe.
METRICS = {
    "sluice_models_in_memory": ("gauge", "Number of models that are in memory"),
    "sluice_model_memory_bytes": ("gauge", "What models and messages under way take, in bytes"),
    "sluice_model_memory_budget_bytes": ("gauge", "What they may take with lazy loading, in bytes, 0 without limit"),
    "sluice_lazy_loads_total": ("counter", "Number of models that were loaded for requests"),
    "sluice_evictions_total": ("counter", "Number of models that left memory for others"),
}

logger = logging.getLogger(__name__)


class LazyLoading:
    """Does what requests ask for, in threads of its own; before start, requests for models that are not loaded wait."""

    def __init__(self, engine: Engine, lifecycle: LazyLifecycle, budget: MemoryBudget):
        self._engine = engine
        self._lifecycle = lifecycle
        self._budget = budget
        self._failures = FailedLoads()
        self._is_stopped = False
        self._lock = threading.Lock()
        self._loads = 0
        # Models of which the log has said that the budget does not see all of their memory.
        self._on_gpus: set[str] = set()
        self._threads = [
            threading.Thread(target=run, name=f"lazy-loading-{number}", daemon=True)
            for number, run in enumerate([self._keep_house, *[self._run] * (PARALLEL_SESSIONS - 1)])
        ]

    def start(self) -> None:
        """Load what is asked for from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Refuse what waits, and what comes later; a load that is under way is not waited for."""
        self._is_stopped = True
        self._engine.end_parking()

    def _keep_house(self) -> None:
        """As _run; while there is nothing to load, see to models that failed and to what others take by now."""
        self._run(self._find_failed, self._budget.make_room)

    def _run(
        self, find_other: Callable[[], str | None] = lambda: None, look_after: Callable[[], None] = lambda: None
    ) -> None:
        while not self._is_stopped:
            name = self._engine.take_wanted(LOOK_S) or find_other()
            try:
                if name is None:
                    look_after()
                else:
                    self.bring(name)
            except UnavailableError:
                # The server is stopping.
                return
            except Exception as error:
                logger.error("lazy loading failed", exc_info=error, extra={"model": name})
                self._give_up(name)

    def _give_up(self, name: str | None) -> None:
        """Answer those who wait for a model, of which it could not even be tried to load it."""
        with contextlib.suppress(UnavailableError):
            if name is not None:
                self._lifecycle.refuse_dormant(name)
                self._failures.note(name)

    def _find_failed(self) -> str | None:
        """A model to try again. Whose folder has changed or gone since is not one."""
        for step in self._lifecycle.list_missing_steps():
            self._failures.notice(step)
        name = self._failures.take_due()
        if name is not None and not self._lifecycle.is_refused(name):
            self._failures.forget(name)
            return None
        return name

    def bring(self, name: str) -> None:
        """Load a model, with room made for it; what waits for it is answered, or hears why not.

        Raises
        ------
        UnavailableError
            The server is stopping.
        """
        self._budget.make_room(self._lifecycle.measure_files(name))
        with contextlib.suppress(LoadError, NotFoundError):
            self._lifecycle.load_dormant(name)
        if self._lifecycle.is_refused(name):
            self._failures.note(name)
            return
        self._failures.forget(name)
        with self._lock:
            self._loads += 1
        if self._budget.budget_bytes > 0 and self._lifecycle.is_on_gpu(name):
            self._warn_of_gpu(name)
        self._budget.make_room(keep=name)

    def _warn_of_gpu(self, name: str) -> None:
        with self._lock:
            is_known = name in self._on_gpus
            self._on_gpus.add(name)
        if not is_known:
            logger.warning("memory budget does not count what a model takes on GPUs", extra={"model": name})

    def describe(self) -> list[Family]:
        """What /metrics tells of it."""
        values = (
            len(self._engine.read_use()),
            self._budget.read_used_bytes(),
            self._budget.budget_bytes,
            self._loads,
            self._budget.evictions,
        )
        families = [Family(name, kind, meaning) for name, (kind, meaning) in METRICS.items()]
        for family, value in zip(families, values, strict=True):
            family.add(value)
        return families


class FailedLoads:
    """Which models could not be loaded, and when each is to be tried again; safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        # Name → when it is due, and how long the pause before that was.
        self._failed: dict[str, tuple[float, float]] = {}

    def note(self, name: str) -> None:
        """Have a model that has failed be due after a pause, twice as long as the last one."""
        with self._lock:
            _, pause_s = self._failed.get(name, (0.0, 0.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) or FIRST_PAUSE_S
            self._failed[name] = (self._clock() + pause_s, pause_s)

    def notice(self, name: str) -> None:
        """As note, of a model whose failure may be known already."""
        with self._lock:
            self._failed.setdefault(name, (self._clock() + FIRST_PAUSE_S, FIRST_PAUSE_S))

    def forget(self, name: str) -> None:
        """Begin anew with a model, one that has been loaded for instance."""
        with self._lock:
            self._failed.pop(name, None)

    def take_due(self) -> str | None:
        """A model that is due, or None; nobody else gets it before it was noted again."""
        now = self._clock()
        with self._lock:
            for name, (due_s, pause_s) in self._failed.items():
                if due_s <= now:
                    self._failed[name] = (float("inf"), pause_s)
                    return name
        return None
