"""CUDA's own calls beside those of ONNX Runtime: memory that processes share, and copies. Names are the library's."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    IPC_HANDLE_BYTES = 64


cdef struct cudaIpcMemHandle_t:   # given by value
    char reserved[IPC_HANDLE_BYTES]


cdef struct cuda_table:           # what a loaded library has; every call gives 0, or an error's number
    const char* (*cudaGetErrorString)(int error) noexcept nogil
    int (*cudaGetDeviceCount)(int* count) noexcept nogil
    int (*cudaSetDevice)(int number) noexcept nogil
    int (*cudaIpcOpenMemHandle)(void** place, cudaIpcMemHandle_t handle, unsigned int flags) noexcept nogil
    int (*cudaIpcCloseMemHandle)(void* place) noexcept nogil
    int (*cudaMemcpyAsync)(void* target, const void* source, size_t size, int kind, void* stream) noexcept nogil
    int (*cudaStreamCreateWithFlags)(void** stream, unsigned int flags) noexcept nogil
    int (*cudaStreamSynchronize)(void* stream) noexcept nogil
    int (*cudaStreamDestroy)(void* stream) noexcept nogil
    int (*cuMemGetAddressRange_v2)(uint64_t* base, size_t* size, uint64_t place) noexcept nogil   # the driver's


cdef class CudaRuntime:
    cdef cuda_table table
    cdef readonly str path

    cdef uint8_t* map_memory(self, bytes handle, int gpu, size_t size) except NULL
    cdef void* create_stream(self, int gpu) except NULL


cdef void unmap_memory(const cuda_table* table, int gpu, void* place) noexcept nogil
cdef void destroy_stream(const cuda_table* table, int gpu, void* stream) noexcept nogil
cdef int queue_copy(const cuda_table* table, void* target, const void* source, size_t size, void* stream) noexcept nogil
cdef int copy_memory(const cuda_table* table, int gpu, void* target, const void* source, size_t size) noexcept nogil
