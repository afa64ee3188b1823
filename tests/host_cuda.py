"""Compiles host_cuda.c, which stands in for CUDA where there is no GPU, and allocates its memory as a client would."""

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
# Under the names that the server looks for: in a folder of LD_LIBRARY_PATH they are the system's.
NAMES = ("libcudart.so.13", "libcuda.so.1")
HANDLE_BYTES = 64
COPY_DEFAULT = 4


@functools.cache
def build_host_cuda():
    """The folder in which the library lies by its names, until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="host-cuda-"))
    library = folder / NAMES[0]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(SOURCE), "-lrt"], check=True)
    (folder / NAMES[1]).symlink_to(library)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_host_cuda():
    """It as the kernels' runtime of CUDA, of which its clients need nothing."""
    from kernels.cuda_runtime import CudaRuntime

    folder = build_host_cuda()
    return CudaRuntime(str(folder / NAMES[0]), str(folder / NAMES[1]))


@functools.cache
def load_host_cuda():
    """The library, for the calls that a client makes."""
    return ctypes.CDLL(str(build_host_cuda() / NAMES[0]))


def count_copies():
    """How many copies to and from its device memory the library has made in this process."""
    return load_host_cuda().host_cuda_copies()


class GpuMemory:
    """Memory of a GPU that this process has allocated; leaving it as a context frees it.

    Parameters
    ----------
    library
        CUDA's runtime; without it the one of host_cuda.c.
    """

    def __init__(self, content, gpu=0, library=None):
        self._library = library or load_host_cuda()
        self._place = ctypes.c_void_p()
        self.size = len(content)
        assert self._library.cudaSetDevice(gpu) == 0
        assert self._library.cudaMalloc(ctypes.byref(self._place), ctypes.c_size_t(self.size)) == 0
        handle = (ctypes.c_char * HANDLE_BYTES)()
        assert self._library.cudaIpcGetMemHandle(handle, self._place) == 0
        self.handle = handle.raw
        self.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self._library.cudaFree(self._place) == 0

    @property
    def address(self):
        """Where it is."""
        return self._place.value

    @property
    def opened(self):
        """How often this process has opened it by its handle."""
        return self._library.host_cuda_opened(_Handle.from_buffer_copy(self.handle))

    def write(self, content, start=0):
        """Put bytes there."""
        self._copy(self._place.value + start, content, len(content))

    def read(self, start=0, size=None):
        """Its bytes now."""
        size = self.size - start if size is None else size
        target = ctypes.create_string_buffer(size)
        self._copy(target, self._place.value + start, size)
        return target.raw

    def _copy(self, target, source, size):
        places = [ctypes.c_void_p(place) if isinstance(place, int) else place for place in (target, source)]
        assert self._library.cudaMemcpyAsync(*places, ctypes.c_size_t(size), COPY_DEFAULT, ctypes.c_void_p(2)) == 0
        assert self._library.cudaStreamSynchronize(ctypes.c_void_p(2)) == 0


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * HANDLE_BYTES)]
