"""Where a session runs, as its buffers see it: memory that it reads and writes, and how a tensor there is made."""

from kernels.cuda_runtime cimport cuda_table
from kernels.failure cimport failure
from kernels.ort cimport OrtAllocator, OrtMemoryInfo, OrtSession, OrtStatus, ort_table
from kernels.runtime cimport ort_runtime

cdef enum:
    NO_GPU = -1


cdef struct device:
    ort_table api
    OrtMemoryInfo* memory     # what a tensor over its buffers is made with
    OrtAllocator* allocator   # the session's own, for that memory; NULL on the CPU, where any aligned memory will do
    bint reads_messages       # runs on tensors where messages hold them, and writes into replies
    int gpu                   # whose memory the session reads and writes itself; NO_GPU for none's
    OrtMemoryInfo* gpu_memory  # what a tensor there is made with
    OrtAllocator* gpu_allocator  # the session's own of it, where runs are recorded
    const cuda_table* cuda    # copies to and from it are made on `stream`; NULL makes them in the process itself
    void* stream              # the session's, which its owner made


cdef void open_host(device* made, ort_runtime* runtime) noexcept nogil
cdef int open_staging(device* made, ort_runtime* runtime, OrtSession* session, const char* name, int ordinal) except -1
cdef int open_gpu_memory(device* made, const char* name, int ordinal, int gpu) except -1
cdef int open_gpu_allocator(device* made, ort_runtime* runtime, OrtSession* session) except -1
cdef void close_device(device* used) noexcept nogil
cdef void* allocate_buffer(device* used, size_t size) noexcept nogil
cdef void free_buffer(device* used, void* buffer) noexcept nogil
cdef OrtStatus* allocate_on_gpu(device* used, size_t size, void** place) noexcept nogil
cdef void free_on_gpu(device* used, void* place) noexcept nogil
cdef int copy_to_gpu(const device* used, void* target, const void* source, size_t size, failure* error) noexcept nogil
cdef int copy_from_gpu(const device* used, void* target, const void* source, size_t size, failure* error) noexcept nogil
cdef int finish_copies(const device* used, failure* error) noexcept nogil
