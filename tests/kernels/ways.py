"""The ways in which a model version can run, for tests that must hold in each."""

from dataclasses import dataclass

import pytest

from service.model_sessions import list_usable_gpus


@dataclass(frozen=True)
class Way:
    """Sessions of one model, where they are, and how they are run.

    Attributes
    ----------
    buffer_sets
        0 runs batches on the engine's workers.
    """

    device: str = "cpu"
    sessions: int = 1
    buffer_sets: int = 0

    @property
    def capacity(self) -> int:
        """Full batches that are taken from the queue before any of them has been run."""
        return self.sessions * max(self.buffer_sets, 1)


WORKERS = Way()
LANE = Way(buffer_sets=2)
# As GPU sessions are run: staged, so that nothing is read in messages or written into replies.
STAGED = Way("cpu:staged", buffer_sets=2)
LANES = Way("cpu:staged", sessions=2, buffer_sets=3)
GPU = pytest.param(
    Way("cuda:0", buffer_sets=2),
    id="gpu",
    marks=pytest.mark.skipif(not list_usable_gpus(), reason="no GPU that ONNX Runtime can use: see `sluice doctor`"),
)
BY_LANES = [pytest.param(LANE, id="lane"), pytest.param(STAGED, id="staged"), pytest.param(LANES, id="lanes"), GPU]

every_way = pytest.mark.parametrize("way", [pytest.param(WORKERS, id="workers"), *BY_LANES], indirect=True)
every_lane = pytest.mark.parametrize("way", BY_LANES, indirect=True)
