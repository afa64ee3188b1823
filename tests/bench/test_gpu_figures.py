"""bench.gpu: what its rows make of readings of a GPU, and how long it takes."""

import pytest

from bench.effort import Effort
from bench.gpu import case, served
from bench.gpu.loop import BIND, RECORD, RUN
from bench.gpu.watch import Watch, list_goals, watching
from bench.processes import BenchError
from service.gpus import Gpu, GpuReading

MIB = 2**20
# Of one command on a machine that is lent for a while.
TIME_LIMIT_S = 600.0


def reading(utilization, used=100 * MIB, power=300.0):
    """A reading of a GPU."""
    gpu = Gpu(number=0, uuid="GPU-1", name="a GPU", memory_bytes=1000 * MIB)
    return GpuReading(gpu, utilization, used, gpu.memory_bytes, power, 50)


def watch_of(*readings):
    """A watch with a reading each half second."""
    return Watch([(place / 2, taken) for place, taken in enumerate(readings)])


def medians(watch):
    """{name: figure}."""
    return {name: figure.median for name, figure in watch.figures().items()}


def test_utilisation_is_of_the_time_after_the_first_seconds():
    """What the driver tells at first is of what was before."""
    watch = watch_of(*[reading(0.0)] * 4, *[reading(0.9), reading(1.0)] * 4)
    assert medians(watch)["gpu_utilization"] == pytest.approx(0.95)


def test_growth_is_from_soon_after_the_beginning_to_the_end():
    """Buffers that are made for the first batches are no growth."""
    used = [10, 20, 30, 40, 50, 100, 100, 100, 100, 100, 100, 117]
    watch = watch_of(*(reading(1.0, mib * MIB) for mib in used))
    assert medians(watch)["device_memory_growth_bytes"] == 17 * MIB
    figures = watch.figures()
    met = {goal.figure: goal.is_met(figures) for goal in list_goals(figures)}
    assert met == {"gpu_utilization": True, "device_memory_growth_bytes": False}


def test_figures_that_a_gpu_does_not_give_are_left_out():
    """Nor are goals made of them."""
    assert Watch().figures() == {}
    assert list_goals({}) == []
    silent = watch_of(*[reading(None, None, None)] * 8)
    assert silent.figures() == {}
    assert medians(watch_of(*[reading(None)] * 8)) == {"device_memory_growth_bytes": 0, "power_w": 300}


def test_watching_reads_the_first_gpu_until_the_end():
    """And no other."""
    with watching(lambda: [reading(1.0), reading(0.0)]) as watch:
        while len(watch.readings) < 3:
            pass
    seen = len(watch.readings)
    assert {taken.utilization for _, taken in watch.readings} == {1.0}
    assert len(watch.readings) == seen


class SteadyLoop:
    """A device that takes the same time for every batch, and knows some ways."""

    def __init__(self, batch_s, ways=(RUN, BIND, RECORD)):
        self.batch_s, self.ways, self.spent_s = batch_s, ways, 0.0

    def run_bare(self, way, rows, runs):
        """Rows a second."""
        if way not in self.ways:
            raise BenchError(f"{way}: the device does not know it")
        self.spent_s += runs * self.batch_s
        return rows / self.batch_s

    def run_engine(self, way, rows, requests, window, buffer_sets):
        """As the engine answers."""
        self.spent_s += requests / rows * self.batch_s
        return {"rows": requests, "executions": requests // rows, "loop_ns": requests / rows * self.batch_s * 1e9}


@pytest.mark.parametrize("batch_s", [0.0005, 0.005, 0.06])
def test_a_model_is_measured_within_the_time_of_a_command(batch_s):
    """Whether a batch takes half a millisecond or sixty; with both servers, at their slowest start."""
    loop = SteadyLoop(batch_s)
    rows, bench = case.measure_loop(loop, {"device": "cuda:0"}, Effort())
    assert [row.name for row in rows] == ["gpu_bare", "gpu_engine", "gpu_engine", "gpu_long"]
    assert bench.batch_s == pytest.approx(batch_s)
    served_s = len(served.TRANSPORTS) * (served.CLOSED_S + served.OPEN_S)
    assert loop.spent_s + served_s < TIME_LIMIT_S / 2
    [batches] = rows[-1].figures["batches"].repeats
    assert batches * batch_s <= case.FLAT_S + batch_s
    assert batches <= case.FLAT_BATCHES


def test_way_that_the_device_does_not_know_is_told_in_the_row():
    """All other rows are made."""
    rows, _ = case.measure_loop(SteadyLoop(0.001, ways=(RUN,)), {"device": "cuda:0"}, Effort(is_quick=True))
    assert [row.name for row in rows] == ["gpu_bare", "gpu_engine", "gpu_long"]
    assert rows[0].notes == {way: f"{way}: the device does not know it" for way in (BIND, RECORD)}
    assert [goal.figure for goal in rows[1].goals] == ["ratio"]
