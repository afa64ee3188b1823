"""What an instance keeps of a batch whose requests have different shapes."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.uneven_rules cimport MAX_LENGTHS


cdef struct uneven_batch:
    int64_t[MAX_LENGTHS] longest   # how long the batch is, padded
    int64_t* taken                 # of each output that is scattered: elements of the requests that have theirs
    uint8_t* cropped               # one reply's cropped outputs, one behind the other
    size_t capacity
    size_t position                # where the next one goes


cdef uneven_batch* create_uneven(int32_t n_outputs) noexcept nogil
cdef void free_uneven(uneven_batch* used) noexcept nogil
cdef int reserve_cropped(uneven_batch* used, size_t size) noexcept nogil
cdef void trim_cropped(uneven_batch* used) noexcept nogil
