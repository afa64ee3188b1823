"""The child's side of bench.processes.Loop: reads commands, runs them, answers."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def answer_commands(run: Callable[..., dict[str, Any]]) -> None:
    """Call `run` with each command's fields until there are no more; answer with what it returns and its CPU time."""
    for line in sys.stdin:
        started_ns, started_cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        answer = run(**json.loads(line))
        took = {
            "elapsed_ns": time.perf_counter_ns() - started_ns,
            "cpu_ns": time.process_time_ns() - started_cpu_ns,
        }
        print(json.dumps({**took, **answer}), flush=True)


def read_settings() -> dict[str, Any]:
    """What the parent gave on the command line."""
    return json.loads(sys.argv[1])
