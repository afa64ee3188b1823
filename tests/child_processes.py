"""What processes have started, as the kernel tells."""

import contextlib
from pathlib import Path


def list_children(pid):
    """Numbers of a process's children, in order."""
    while True:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        # A thread that ends amid the look leaves its children to another one.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return sorted(int(child) for task in tasks for child in task.read_text().split())
