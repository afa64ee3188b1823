"""What machine and process use, from /proc: Triton's CPU metrics, and those that every Prometheus client has."""

import math
import os
import resource
import threading
from pathlib import Path

from service.exposition import Family

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/stat's first line after its name: time spent idle and waiting for a disk, and those counted twice.
IDLE_FIELDS = (3, 4)
COUNTED_FIELDS = 8
# Fields of /proc/self/stat, counted from 0 behind the command's closing parenthesis.
USER_TICKS, SYSTEM_TICKS, START_TICKS, VIRTUAL_BYTES, RESIDENT_PAGES = 11, 12, 19, 20, 21


class MachineMetrics:
    """Reads /proc at each call; utilization is that since the call before, of whoever made it."""

    def __init__(self, proc: Path = PROC):
        self._proc = proc
        self._lock = threading.Lock()
        self._busy, self._total = self._read_ticks()
        self._utilization = 0.0

    def describe(self) -> list[Family]:
        """The families of the machine and of the process."""
        return [*self._describe_machine(), *self._describe_process()]

    def _describe_machine(self) -> list[Family]:
        memory = self._read_memory()
        return [
            _sample("nv_cpu_utilization", "gauge", "CPU utilization rate [0.0 - 1.0]", self._measure_utilization()),
            _sample("nv_cpu_memory_total_bytes", "gauge", "CPU total memory (RAM), in bytes", memory["MemTotal"]),
            _sample(
                "nv_cpu_memory_used_bytes",
                "gauge",
                "CPU used memory (RAM), in bytes",
                memory["MemTotal"] - memory["MemAvailable"],
            ),
        ]

    def _measure_utilization(self) -> float:
        with self._lock:
            busy, total = self._read_ticks()
            # Two scrapes within one tick see no time pass: what the first one saw still holds.
            if total > self._total:
                self._utilization = min(max((busy - self._busy) / (total - self._total), 0.0), 1.0)
                self._busy, self._total = busy, total
            return self._utilization

    def _read_ticks(self) -> tuple[int, int]:
        """Ticks that all processors together were busy, and all of theirs; a guest's are among its host's."""
        fields = [int(text) for text in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
        total = sum(fields[:COUNTED_FIELDS])
        return total - sum(fields[index] for index in IDLE_FIELDS), total

    def _read_memory(self) -> dict[str, int]:
        lines = (line.split() for line in (self._proc / "meminfo").read_text().splitlines())
        return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, *_ in lines}

    def _describe_process(self) -> list[Family]:
        folder = self._proc / "self"
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        booted_s = next(
            int(line.split()[1]) for line in (self._proc / "stat").read_text().splitlines() if line.startswith("btime ")
        )
        cpu_s = (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / TICKS_PER_S
        resident = int(fields[RESIDENT_PAGES]) * PAGE_BYTES
        started_s = booted_s + int(fields[START_TICKS]) / TICKS_PER_S
        return [
            _sample("process_cpu_seconds_total", "counter", "CPU time of the process, in seconds", cpu_s),
            _sample("process_resident_memory_bytes", "gauge", "Resident memory, in bytes", resident),
            _sample("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes", int(fields[VIRTUAL_BYTES])),
            _sample(
                "process_start_time_seconds", "gauge", "Start of the process, in seconds since the epoch", started_s
            ),
            _sample("process_open_fds", "gauge", "Open file descriptors", len(os.listdir(folder / "fd"))),
            _sample("process_max_fds", "gauge", "Most file descriptors that may be open", _read_max_descriptors()),
        ]


def _read_max_descriptors() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _sample(name: str, kind: str, meaning: str, value: float) -> Family:
    family = Family(name, kind, meaning)
    family.add(value)
    return family
