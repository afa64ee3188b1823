"""Taking the outputs of an uneven batch apart."""

from libc.stdint cimport int32_t, int64_t

from kernels.failure cimport failure
from kernels.instance cimport instance
from kernels.request cimport request


cdef bint is_scattered(const instance* used, int32_t output) noexcept nogil
cdef int check_outputs(instance* used, const request* batch, failure* error) noexcept nogil
cdef int reserve_crops(instance* used, const request* member, int64_t first, failure* error) noexcept nogil
cdef bint slice_uneven(instance* used, const request* member, int64_t first, int32_t place) noexcept nogil
cdef void pass_scattered(instance* used, const request* member) noexcept nogil
