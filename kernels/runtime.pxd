"""The ONNX Runtime library as one process uses it: its table, one environment, one CPU allocator."""

from kernels.failure cimport failure
from kernels.ort cimport OrtAllocator, OrtEnv, OrtMemoryInfo, OrtStatus, ort_table


cdef struct ort_runtime:
    ort_table api
    OrtEnv* env               # lives as long as the process: every session refers to it
    OrtMemoryInfo* memory     # describes plain host memory
    OrtAllocator* allocator   # ONNX Runtime's own, for names and string tensors


cdef ort_runtime* open_runtime() except NULL
cdef int check_status(ort_table api, OrtStatus* status, failure* error) noexcept nogil
cdef int raise_status(ort_table api, OrtStatus* status) except -1
cdef bint is_out_of_memory(const char* text) noexcept nogil
