"""Metrics of the machine and the process, from /proc."""

import os
import time

import pytest

from service.machine_metrics import MachineMetrics

MEMINFO = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\nHugePages_Total:  0\n"


@pytest.fixture
def proc(tmp_path):
    """A folder like /proc, whose ticks a test writes."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "self").symlink_to("/proc/self")
    write_ticks(tmp_path, user=0, idle=0)
    return tmp_path


def write_ticks(proc, *, user, idle, waiting=0, guest=0):
    """Write the line of all processors; a guest's ticks are among the user's."""
    fields = (user, 0, 0, idle, waiting, 0, 0, 0, guest, 0)
    (proc / "stat").write_text(f"cpu  {' '.join(map(str, fields))}\ncpu0 1 1 1 1\nbtime 1700000000\n")


def read_samples(metrics):
    """{name: value}."""
    lines = [line.rpartition(" ") for family in metrics.describe() for line in family.lines]
    return {name: float(value) for name, _, value in lines}


def test_utilization_is_that_between_two_scrapes(proc):
    """Waiting for a disk is idle, and a guest is not counted twice."""
    metrics = MachineMetrics(proc)
    write_ticks(proc, user=30, idle=60, waiting=10, guest=20)
    assert read_samples(metrics)["nv_cpu_utilization"] == pytest.approx(0.3)
    write_ticks(proc, user=130, idle=60, waiting=10, guest=20)
    assert read_samples(metrics)["nv_cpu_utilization"] == pytest.approx(1.0)


def test_utilization_of_no_time_is_the_one_before(proc):
    """Two scrapes at once do not divide by nothing, and counters that fall do not give a negative rate."""
    metrics = MachineMetrics(proc)
    assert read_samples(metrics)["nv_cpu_utilization"] == 0
    write_ticks(proc, user=50, idle=50)
    assert [read_samples(metrics)["nv_cpu_utilization"] for _ in range(2)] == [0.5, 0.5]
    write_ticks(proc, user=40, idle=70)
    assert read_samples(metrics)["nv_cpu_utilization"] == 0


def test_memory_is_in_bytes_and_what_can_be_had_is_not_used(proc):
    """Caches can be had."""
    samples = read_samples(MachineMetrics(proc))
    assert samples["nv_cpu_memory_total_bytes"] == 1000 * 1024
    assert samples["nv_cpu_memory_used_bytes"] == 600 * 1024


def test_process_metrics_are_those_of_this_process():
    """Against what the standard library says of it."""
    samples = read_samples(MachineMetrics())
    assert samples["process_cpu_seconds_total"] == pytest.approx(time.process_time(), abs=1.0)
    assert 0 < samples["process_resident_memory_bytes"] < samples["process_virtual_memory_bytes"]
    assert time.time() - 7 * 24 * 3600 < samples["process_start_time_seconds"] < time.time() + 1
    assert 3 <= samples["process_open_fds"] <= len(os.listdir("/proc/self/fd")) + 1
    assert samples["process_max_fds"] >= samples["process_open_fds"]
