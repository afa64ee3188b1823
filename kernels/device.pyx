"""The kinds of memory in which a session's tensors lie: the process's own, what its device can reach, and the device's.

A GPU copies at full speed, and beside its computing, only from memory that is pinned. ONNX Runtime's own allocator for
that is used (``CudaPinned``), so that nothing here is linked with CUDA, and the same path runs on the CPU with the
session's allocator ``Cpu``.
"""

from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from kernels.cuda_runtime cimport CudaRuntime, destroy_stream, queue_copy
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.ort cimport *
from kernels.runtime cimport ort_runtime, raise_status
from kernels.status cimport INTERNAL

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    ALIGNMENT = 64              # a cache line, and enough for every vector instruction
    ORT_DEVICE_ALLOCATOR = 0
    ORT_MEMORY_CPU_OUTPUT = -1  # what a device writes and the process reads
    ORT_MEMORY_DEFAULT = 0


cdef void open_host(device* made, ort_runtime* runtime) noexcept nogil:
    """Use the process's own memory, and tensors where they are."""
    made.api = runtime.api
    made.memory = runtime.memory
    made.allocator = NULL
    made.reads_messages = True
    made.gpu = NO_GPU


cdef int open_staging(device* made, ort_runtime* runtime, OrtSession* session, const char* name, int ordinal) except -1:
    """Use the memory of that name that the session's provider allocates. The session must outlive the device."""
    cdef OrtMemoryInfo* memory = NULL
    cdef OrtAllocator* allocator = NULL
    raise_status(runtime.api, ort_CreateMemoryInfo(
        runtime.api, name, ORT_DEVICE_ALLOCATOR, ordinal, ORT_MEMORY_CPU_OUTPUT, &memory))
    try:
        raise_status(runtime.api, ort_CreateAllocator(runtime.api, session, memory, &allocator))
    except:
        ort_ReleaseMemoryInfo(runtime.api, memory)
        raise
    made.api = runtime.api
    made.memory = memory
    made.allocator = allocator
    made.reads_messages = False
    made.gpu = NO_GPU
    return 0


cdef int open_gpu_memory(device* made, const char* name, int ordinal, int gpu) except -1:
    """Let tensors lie in memory of a GPU too, which the provider has under that name and number."""
    raise_status(made.api, ort_CreateMemoryInfo(
        made.api, name, ORT_DEVICE_ALLOCATOR, ordinal, ORT_MEMORY_DEFAULT, &made.gpu_memory))
    made.gpu = gpu
    return 0


cdef int open_gpu_allocator(device* made, ort_runtime* runtime, OrtSession* session) except -1:
    """Allocate memory of the GPU too, by the session's provider. The session must outlive the device."""
    raise_status(made.api, ort_CreateAllocator(runtime.api, session, made.gpu_memory, &made.gpu_allocator))
    return 0


cdef void close_device(device* used) noexcept nogil:
    """Release what open_staging made; every buffer has been freed. A device of zeros is fine."""
    if used.allocator == NULL:
        return
    if used.gpu_allocator != NULL:
        ort_ReleaseAllocator(used.api, used.gpu_allocator)
    if used.gpu_memory != NULL:
        ort_ReleaseMemoryInfo(used.api, used.gpu_memory)
    ort_ReleaseAllocator(used.api, used.allocator)
    ort_ReleaseMemoryInfo(used.api, used.memory)
    used.allocator = used.gpu_allocator = NULL
    used.memory = used.gpu_memory = NULL


cdef void* allocate_buffer(device* used, size_t size) noexcept nogil:
    """Return at least `size` bytes for free_buffer to take back, or NULL without memory."""
    cdef void* buffer = NULL
    cdef OrtStatus* status
    if used.allocator == NULL:
        if posix_memalign(&buffer, ALIGNMENT, size + ALIGNMENT) != 0:
            return NULL
        return buffer
    status = ort_AllocatorAlloc(used.api, used.allocator, size + ALIGNMENT, &buffer)
    if status != NULL:
        ort_ReleaseStatus(used.api, status)
        return NULL
    return buffer


cdef void free_buffer(device* used, void* buffer) noexcept nogil:
    """Give a buffer back; NULL is fine."""
    cdef OrtStatus* status
    if used.allocator == NULL:
        free(buffer)
    elif buffer != NULL:
        status = ort_AllocatorFree(used.api, used.allocator, buffer)
        if status != NULL:
            ort_ReleaseStatus(used.api, status)


# ---- the device's own memory


cdef OrtStatus* allocate_on_gpu(device* used, size_t size, void** place) noexcept nogil:
    """Allocate at least `size` bytes for free_on_gpu to take back."""
    return ort_AllocatorAlloc(used.api, used.gpu_allocator, size + ALIGNMENT, place)


cdef void free_on_gpu(device* used, void* place) noexcept nogil:
    """Give memory back; NULL is fine."""
    cdef OrtStatus* status
    if place == NULL:
        return
    status = ort_AllocatorFree(used.api, used.gpu_allocator, place)
    if status != NULL:
        ort_ReleaseStatus(used.api, status)


cdef int copy_to_gpu(const device* used, void* target, const void* source, size_t size, failure* error) noexcept nogil:
    """Have bytes copied from pinned memory, before what the session's stream is given next. 0, or -1 with `error` set."""
    if used.cuda != NULL:
        return check_cuda(used, queue_copy(used.cuda, target, source, size, used.stream), error)
    memcpy(target, source, size)
    return 0


cdef int copy_from_gpu(const device* used, void* target, const void* source, size_t size, failure* error) noexcept nogil:
    """Have bytes copied to pinned memory once the stream has done what it was given; finish_copies waits for them."""
    return copy_to_gpu(used, target, source, size, error)


cdef int finish_copies(const device* used, failure* error) noexcept nogil:
    """Wait until the stream has done all that it was given. 0, or -1 with `error` set."""
    if used.cuda == NULL:
        return 0
    return check_cuda(used, used.cuda.cudaStreamSynchronize(used.stream), error)


def copy_there_and_back(CudaRuntime cuda not None, int gpu, size_t place, bytes content not None):
    """Copy bytes to a place on a GPU and back, on a stream that is waited for once, as a recorded run does; for tests.

    Returns what came back; RuntimeError with CUDA's text instead.
    """
    cdef device made
    cdef failure error
    cdef bytearray found = bytearray(len(content))
    cdef const char* source = content
    cdef char* target = found
    cdef size_t size = len(content)
    cdef int failed
    memset(&made, 0, sizeof(device))
    made.cuda, made.gpu, made.stream = &cuda.table, gpu, cuda.create_stream(gpu)
    with nogil:
        failed = copy_to_gpu(&made, <void*> place, source, size, &error)
        if failed == 0:
            failed = copy_from_gpu(&made, target, <const void*> place, size, &error)
        if failed == 0:
            failed = finish_copies(&made, &error)
        destroy_stream(made.cuda, made.gpu, made.stream)
    if failed != 0:
        raise RuntimeError(error.text.decode())
    return bytes(found)


cdef int check_cuda(const device* used, int found, failure* error) noexcept nogil:
    if found == 0:
        return 0
    error.code = INTERNAL
    snprintf(error.text, FAILURE_TEXT_BYTES, "CUDA: %s", used.cuda.cudaGetErrorString(found))
    return -1
