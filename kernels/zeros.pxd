"""A model's run on zeros, in one step or as the lane takes it."""

from libc.stdint cimport int64_t

from kernels.failure cimport failure
from kernels.instance cimport instance


cdef int prepare_zeros(instance* used, int64_t rows, failure* error) noexcept nogil
cdef void finish_zeros(instance* used) noexcept nogil
cdef int run_zeros(instance* used, failure* error) noexcept nogil
