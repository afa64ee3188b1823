"""Becomes another program that is told to end when the process that started it is gone, however that went.

Run as a script: `launch.py PARENT_PID PROGRAM [ARGUMENT ...]`. A step of its own, since code between fork and exec in a
process with threads can hang.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def launch(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's end, then become the program."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The parent may have gone before the kernel was asked.
    if os.getppid() != parent:
        sys.exit("the starting process is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
