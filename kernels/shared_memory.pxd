"""Regions of shared memory that clients have registered, the system's or a GPU's, and the bytes in them.

A region of system shared memory is read and written through its descriptor and never mapped: its owner may cut the
object short at any time, and what was mapped of it would then end the process with SIGBUS. A GPU's memory cannot be cut
short, and is reached by CUDA only: nothing may be read or written at its address.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from kernels.cuda_runtime cimport CudaRuntime, cuda_table
from kernels.sync cimport pthread_mutex_t
from kernels.wire cimport bytes_view

cdef enum:
    BUCKETS = 256            # of names, a power of two


cdef struct region:
    region* next             # in its bucket
    int references           # the table's, and one of each request that holds it
    char* name               # owned
    size_t name_size
    int descriptor           # of the memory object, open for reading and writing; -1 for a GPU's memory
    int64_t offset           # where the region begins in the object
    int64_t size
    uint64_t device          # which object: two regions may lie in one
    uint64_t inode
    uint8_t* base            # where a GPU has it, mapped for this process; NULL for system shared memory
    int gpu
    const cuda_table* cuda   # what it is reached by; the SharedMemory keeps it


cdef struct region_table:
    pthread_mutex_t lock     # guards what follows
    region* buckets[BUCKETS]


cdef class SharedMemory:
    cdef region_table* table
    cdef object _lock        # over a look at the table that leads to a change of it
    cdef dict _keys          # name -> key of the object, as it was registered; None for a GPU's memory
    cdef CudaRuntime _cuda   # None until a region of a GPU is registered

    cdef int add(self, bytes name, int descriptor, int64_t offset, int64_t size) except -1
    cdef int add_cuda(self, bytes name, bytes handle, int gpu, int64_t size) except -1
    cdef tuple describe(self, str name)


cdef region* hold_region(region_table* table, bytes_view name) noexcept nogil
cdef void drop_region(region* held) noexcept nogil
cdef bint is_on_gpu(const region* home) noexcept nogil
cdef int read_region(const region* source, int64_t offset, uint8_t* target, size_t size) noexcept nogil
cdef int write_region(const region* target, int64_t offset, const uint8_t* source, size_t size) noexcept nogil
