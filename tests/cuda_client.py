"""A client that shares memory of a GPU: allocates it, gives its handle, and says what is in it when it is asked.

A process of its own, since CUDA opens no handle in the process that it comes from. Run with the file or name of CUDA's
runtime and the memory's content, in hexadecimal.
"""

import ctypes
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class CudaClient:
    """The test's side of it."""

    def __init__(self, process):
        self._process = process
        self.handle = bytes.fromhex(process.stdout.readline())

    def read(self):
        """The memory's bytes now."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return bytes.fromhex(self._process.stdout.readline())


@contextmanager
def running_client(library, content):
    """Run one; it ends, and frees its memory, with the context."""
    command = [sys.executable, "-m", "tests.cuda_client", str(library), content.hex()]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield CudaClient(process)
        process.stdin.close()
        assert process.wait(30) == 0


def main():
    """Share the memory until standard input ends."""
    from tests.host_cuda import GpuMemory

    library, content = sys.argv[1:]
    with GpuMemory(bytes.fromhex(content), library=ctypes.CDLL(library)) as memory:
        print(memory.handle.hex(), flush=True)
        for _ in sys.stdin:
            print(memory.read().hex(), flush=True)


if __name__ == "__main__":
    main()
