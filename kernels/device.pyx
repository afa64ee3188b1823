"""The two kinds of memory in which batches are gathered: the process's own, and what a session's device can reach.

A GPU copies at full speed, and beside its computing, only from memory that is pinned. ONNX Runtime's own allocator for
that is used (``CudaPinned``), so that nothing here is linked with CUDA, and the same path runs on the CPU with the
session's allocator ``Cpu``.
"""

from libc.stdlib cimport free

from kernels.ort cimport *
from kernels.runtime cimport ort_runtime, raise_status

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    ALIGNMENT = 64              # a cache line, and enough for every vector instruction
    ORT_DEVICE_ALLOCATOR = 0
    ORT_MEMORY_CPU_OUTPUT = -1  # what a device writes and the process reads


cdef void open_host(device* made, ort_runtime* runtime) noexcept nogil:
    """Use the process's own memory, and tensors where they are."""
    made.api = runtime.api
    made.memory = runtime.memory
    made.allocator = NULL
    made.reads_messages = True


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
    return 0


cdef void close_device(device* used) noexcept nogil:
    """Release what open_staging made; every buffer has been freed. A device of zeros is fine."""
    if used.allocator == NULL:
        return
    ort_ReleaseAllocator(used.api, used.allocator)
    ort_ReleaseMemoryInfo(used.api, used.memory)
    used.allocator = NULL
    used.memory = NULL


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
