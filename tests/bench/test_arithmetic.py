"""What bench computes from what it measured: load results, percentiles, slopes, FLOP, CPU time, order of repeats."""

import os
import subprocess
import sys
import time

import onnx_models
import pytest

from bench import convolution
from bench.calls import find_percentile
from bench.effort import Effort
from bench.h2load import LoadResult, parse_result
from bench.memory import describe_sizes, fit_slope
from bench.processes import BenchError, pinned, read_cpu_ns, read_tree_cpu_ns

H2LOAD = """
finished in 102.35ms, 977.05 req/s, 108.49KB/s
requests: 100 total, 100 started, 100 done, 99 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 99 2xx, 0 3xx, 0 4xx, 1 5xx
traffic: 11.10KB (11370) total, 450B (450) headers (space savings 94.44%), 5.08KB (5200) data
                     min         max         mean         sd        +/- sd
time for request:     1.30ms      6.18ms      4.50ms       600us    83.00%
time for connect:      152us       294us       223us       100us   100.00%
"""


def test_h2load_result_is_read_with_its_units():
    """Those that succeeded count, not those that were sent."""
    result = parse_result(H2LOAD)
    assert result == LoadResult(
        requests=99, elapsed_s=pytest.approx(0.10235), mean_us=pytest.approx(4500), reply_bytes=5200
    )
    assert parse_result(H2LOAD.replace("102.35ms", "2.50s")).elapsed_s == 2.5


def test_h2load_without_a_result_is_an_error():
    """A server that is gone is not a fast one."""
    with pytest.raises(BenchError, match="no result"):
        parse_result("starting benchmark...\n")


def test_growth_of_a_single_step_is_none():
    """What is taken once and kept is no leak; the slope alone would call it one."""
    row = describe_sizes("memory", [90_000_000] * 30 + [99_000_000] * 10, 1000)
    assert row.figures["growth_bytes_per_request"].median == 0
    assert row.figures["slope_bytes_per_request"].median > 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_is_a_value_that_was_measured(share, expected):
    """The smallest that the share does not exceed."""
    assert find_percentile(range(1, 101), share) == expected
    assert find_percentile([7.0], share) == 7.0


def test_slope_of_a_line_is_exact():
    """And its error is none."""
    slope, error = fit_slope([5.0 + 3 * step for step in range(20)])
    assert slope == pytest.approx(3)
    assert error == pytest.approx(0, abs=1e-9)


def test_slope_error_is_that_of_least_squares():
    """As worked out by hand: residuals of ±1 around a flat line."""
    slope, error = fit_slope([1, -1, -1, 1])
    assert slope == pytest.approx(0)
    assert error == pytest.approx((4 / 2 / 5) ** 0.5)


@pytest.mark.parametrize(("growth", "is_flat"), [(0, True), (4096, False)])
def test_sizes_that_grow_are_not_flat(growth, is_flat):
    """A page a round shows through noise of two pages; the warm-up does not count."""
    noise = [4096 * (round_number * 7 % 3) for round_number in range(40)]
    sizes = [10_000_000] * 10 + [90_000_000 + growth * step + noise[step] for step in range(30)]
    row = describe_sizes("memory", sizes, 1000)
    assert row.notes["is_flat"] is is_flat
    assert row.figures["slope_bytes_per_request"].median == pytest.approx(growth / 1000, abs=0.3)
    assert row.figures["after_warm_up_mib"].median == pytest.approx(90_000_000 / 2**20, rel=1e-3)


def test_flop_of_the_convolution_are_about_50_million():
    """Stem and body, counted by hand."""
    model = onnx_models.convolution(channels=convolution.CHANNELS, size=convolution.SIZE)
    stem, body = 2 * 96 * 3 * 9 * 32 * 32, 2 * 96 * 96 * 9 * 16 * 16
    assert convolution.count_flop(model, convolution.SIZE) == stem + body
    assert stem + body == pytest.approx(50e6, rel=0.1)


def test_measures_are_interleaved_after_a_warm_up():
    """A B, then A B A B …; the warm-up's results are dropped."""
    order = []
    results = Effort(is_quick=True).interleave(*(lambda name=name: order.append(name) or len(order) for name in "AB"))
    assert "".join(order) == "ABABAB"
    assert results == [[3, 5], [4, 6]]


def test_cpu_time_is_that_of_the_process_clock():
    """Ours, asked for by number, is ours."""
    before, ours = read_cpu_ns(os.getpid()), time.process_time_ns()
    while time.process_time_ns() - ours < 20_000_000:
        pass
    assert read_cpu_ns(os.getpid()) - before >= 20_000_000


def test_cpu_time_of_a_tree_has_that_of_its_workers():
    """A worker's work is its server's."""
    work = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        worker.stdout.readline()
        assert read_tree_cpu_ns(os.getpid()) - read_cpu_ns(os.getpid()) >= 250_000_000
        worker.stdin.close()


def test_pinned_lasts_as_long_as_its_block():
    """Children inherit it; afterwards all is as before."""
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned(core):
        shown = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, text=True
        )
    assert shown.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == before
