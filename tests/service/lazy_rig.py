"""A lifecycle whose models are loaded by requests, with what does that, and callers that wait."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from lifecycle_rig import infer

from kernels.runtime import start_runtime
from service.dormant_models import DormantConfigs
from service.lazy_lifecycle import LazyLifecycle
from service.lazy_loading import LazyLoading
from service.memory_budget import MemoryBudget

CALLERS = 16
LONG_S = 60.0


def await_true(condition):
    """Return once a condition holds."""
    until = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


class LazyRig:
    """What a server with lazy loading is made of.

    Parameters
    ----------
    budget
        In models: the measure of memory is how many of them there are, unless another is given.
    """

    def __init__(self, folder, engine, repository, *, budget=0, pinned=(), measure=None):
        start_runtime()
        self.engine = engine
        self.repository = repository
        self.lifecycle = LazyLifecycle(folder, engine, repository, is_lazy=lambda name: name not in pinned)
        self.budget = MemoryBudget(
            engine, self.lifecycle, budget, pinned, measure=measure or (lambda: len(engine.read_use()))
        )
        # Files are measured in bytes.
        if measure is None:
            self.lifecycle.measure_files = lambda name: 1
        self.lazy = LazyLoading(engine, self.lifecycle, self.budget)
        repository.describe_by(DormantConfigs(folder, repository, 64, load=self.lazy.bring).describe)
        self.lifecycle.find_models()
        self._callers = ThreadPoolExecutor(CALLERS)

    def start(self):
        """Load what is asked for, and what is pinned."""
        self.lazy.start()
        self.lifecycle.load_found()

    def ask(self, name, values, version=""):
        """A request in a thread of its own."""
        return self._callers.submit(infer, self.engine, name, values, version)

    @property
    def in_memory(self):
        """The models that are."""
        return set(self.engine.read_use())

    def close(self):
        """End it; what waits is refused."""
        self.lifecycle.stop_loading()
        self.lazy.stop()
        self._callers.shutdown()


@contextmanager
def make_rig(*arguments, **options):
    """A rig that is started, for as long as the block runs."""
    rig = LazyRig(*arguments, **options)
    rig.start()
    try:
        yield rig
    finally:
        rig.close()


def check_own_rows(rig, names):
    """Call more models than there is room for: each caller gets its own rows, and many models leave memory."""
    asked = {value: rig.ask(names[value * 7 % len(names)], np.full((1, 4), value, np.float32)) for value in range(300)}
    assert {value: call.result(LONG_S).tolist() for value, call in asked.items()} == {
        value: [value] * 4 for value in asked
    }
    assert rig.budget.evictions > 20
