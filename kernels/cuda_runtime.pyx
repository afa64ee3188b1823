"""Loads CUDA's runtime when memory of a GPU is to be shared, and makes the few calls that ONNX Runtime does not make.

Nothing is linked with it: without GPU, driver or library everything else works, and who asks is told what is missing.
"""

import os
import threading

from cython cimport final
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from kernels.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlerror, dlopen, dlsym

from kernels.cuda_libraries import find_runtimes

cdef enum:
    CUDA_MEMCPY_DEFAULT = 4          # by where the two places are
    LAZY_ENABLE_PEER_ACCESS = 1
    STREAM_NON_BLOCKING = 1          # waits for nothing on the stream that every other waits for

# The calling thread's own stream, which CUDA makes: copies of one thread wait for nothing of another.
cdef void* STREAM_PER_THREAD = <void*> 2

DRIVER = "libcuda.so.1"

_lock = threading.Lock()
_opened = []  # the process's one CudaRuntime, once it is there


class CudaError(Exception):
    """CUDA is not there, or has refused something; the text is CUDA's where it has one."""


def open_cuda():
    """Return the process's CudaRuntime, loaded at the first call; CudaError says why there is none.

    Notes
    -----
    A library that was loaded stays, since regions may refer to it until the process ends.
    """
    with _lock:
        if not _opened:
            _opened.append(_open_first(find_runtimes()))
        return _opened[0]


def _open_first(paths):
    problems = []
    for path in paths:
        try:
            return CudaRuntime(path)
        except CudaError as error:
            problems.append(str(error))
    raise CudaError(f"this server has no CUDA: {'; '.join(problems)}")


@final
cdef class CudaRuntime:
    """A loaded library of CUDA's runtime, and the driver's.

    Parameters
    ----------
    path : str
        The runtime's file, or a name that the system's loader knows.
    driver : str
        The same of the driver's library.

    Raises
    ------
    CudaError
        One of them cannot be loaded, or lacks a call.
    """

    def __cinit__(self, path not None, driver not None=DRIVER):
        cdef void* library = load_library(path)
        self.path = os.fspath(path)
        self.table.cudaGetErrorString = <const char* (*)(int) noexcept nogil> find_call(library, b"cudaGetErrorString")
        self.table.cudaGetDeviceCount = <int (*)(int*) noexcept nogil> find_call(library, b"cudaGetDeviceCount")
        self.table.cudaSetDevice = <int (*)(int) noexcept nogil> find_call(library, b"cudaSetDevice")
        self.table.cudaIpcOpenMemHandle = <int (*)(void**, cudaIpcMemHandle_t, unsigned int) noexcept nogil> find_call(
            library, b"cudaIpcOpenMemHandle")
        self.table.cudaIpcCloseMemHandle = <int (*)(void*) noexcept nogil> find_call(library, b"cudaIpcCloseMemHandle")
        self.table.cudaMemcpyAsync = <int (*)(void*, const void*, size_t, int, void*) noexcept nogil> find_call(
            library, b"cudaMemcpyAsync")
        self.table.cudaStreamCreateWithFlags = <int (*)(void**, unsigned int) noexcept nogil> find_call(
            library, b"cudaStreamCreateWithFlags")
        self.table.cudaStreamSynchronize = <int (*)(void*) noexcept nogil> find_call(library, b"cudaStreamSynchronize")
        self.table.cudaStreamDestroy = <int (*)(void*) noexcept nogil> find_call(library, b"cudaStreamDestroy")
        self.table.cuMemGetAddressRange_v2 = <int (*)(uint64_t*, size_t*, uint64_t) noexcept nogil> find_call(
            load_library(driver), b"cuMemGetAddressRange_v2")

    def count_gpus(self):
        """Return how many GPUs CUDA can use; CudaError when it can use none."""
        cdef int count = 0
        check(&self.table, self.table.cudaGetDeviceCount(&count))
        return count

    cdef uint8_t* map_memory(self, bytes handle, int gpu, size_t size) except NULL:
        """Map another process's memory by its handle; CudaError unless it is there and has `size` bytes.

        For unmap_memory. The same handle twice gives the same place, which is to be unmapped as often.
        """
        cdef cudaIpcMemHandle_t given
        cdef void* place = NULL
        cdef uint64_t base = 0
        cdef size_t found = 0
        cdef int error
        memcpy(given.reserved, <const char*> handle, IPC_HANDLE_BYTES)
        with nogil:
            error = self.table.cudaSetDevice(gpu)
            if error == 0:
                error = self.table.cudaIpcOpenMemHandle(&place, given, LAZY_ENABLE_PEER_ACCESS)
        check(&self.table, error)
        error = self.table.cuMemGetAddressRange_v2(&base, &found, <uint64_t> place)
        if error != 0 or size > found - (<uint64_t> place - base):
            unmap_memory(&self.table, gpu, place)
            if error != 0:
                raise CudaError(f"the driver does not know how large the memory is (error {error})")
            raise CudaError(f"byte_size: the region has {size} bytes, and the memory {found}")
        return <uint8_t*> place

    cdef void* create_stream(self, int gpu) except NULL:
        """Make a stream of a GPU, for destroy_stream."""
        cdef void* stream = NULL
        check(&self.table, self.table.cudaSetDevice(gpu))
        check(&self.table, self.table.cudaStreamCreateWithFlags(&stream, STREAM_NON_BLOCKING))
        return stream


cdef void* load_library(path) except NULL:
    cdef bytes encoded = os.fsencode(path)
    cdef void* library = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise CudaError(dlerror().decode(errors="replace"))
    return library


cdef void* find_call(void* library, bytes name) except NULL:
    cdef void* found = dlsym(library, name)
    if found == NULL:
        raise CudaError(dlerror().decode(errors="replace"))
    return found


cdef int check(const cuda_table* table, int error) except -1:
    if error != 0:
        raise CudaError(table.cudaGetErrorString(error).decode(errors="replace"))
    return 0


cdef void unmap_memory(const cuda_table* table, int gpu, void* place) noexcept nogil:
    """Give back what map_memory gave; what CUDA says of it is of no use to anybody."""
    table.cudaSetDevice(gpu)
    table.cudaIpcCloseMemHandle(place)


cdef void destroy_stream(const cuda_table* table, int gpu, void* stream) noexcept nogil:
    """End a stream on which nothing waits; NULL is fine."""
    if stream != NULL:
        table.cudaSetDevice(gpu)
        table.cudaStreamDestroy(stream)


cdef int queue_copy(const cuda_table* table, void* target, const void* source, size_t size, void* stream) noexcept nogil:
    """Have a stream copy bytes, to or from pinned memory, after what it was given before. 0, or CUDA's error."""
    return table.cudaMemcpyAsync(target, source, size, CUDA_MEMCPY_DEFAULT, stream)


cdef int copy_memory(const cuda_table* table, int gpu, void* target, const void* source, size_t size) noexcept nogil:
    """Copy bytes to or from a GPU, and wait until they are there. 0, or CUDA's error.

    From any thread. A copy out of memory that is not pinned returns before the device has it all, hence the wait.
    """
    cdef int error = table.cudaSetDevice(gpu)
    if error == 0:
        error = queue_copy(table, target, source, size, STREAM_PER_THREAD)
    if error == 0:
        error = table.cudaStreamSynchronize(STREAM_PER_THREAD)
    return error
