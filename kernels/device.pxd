"""Where a session runs, as its buffers see it: memory that it reads and writes, and how a tensor there is made."""

from kernels.ort cimport OrtAllocator, OrtMemoryInfo, OrtSession, ort_table
from kernels.runtime cimport ort_runtime


cdef struct device:
    ort_table api
    OrtMemoryInfo* memory     # what a tensor over its buffers is made with
    OrtAllocator* allocator   # the session's own, for that memory; NULL on the CPU, where any aligned memory will do
    bint reads_messages       # runs on tensors where messages hold them, and writes into replies


cdef void open_host(device* made, ort_runtime* runtime) noexcept nogil
cdef int open_staging(device* made, ort_runtime* runtime, OrtSession* session, const char* name, int ordinal) except -1
cdef void close_device(device* used) noexcept nogil
cdef void* allocate_buffer(device* used, size_t size) noexcept nogil
cdef void free_buffer(device* used, void* buffer) noexcept nogil
