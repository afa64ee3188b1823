"""Opening and closing an instance, and making room in its buffers."""

from libc.stdint cimport uint8_t

from kernels.device cimport device
from kernels.failure cimport failure
from kernels.instance cimport instance, version_name
from kernels.session cimport session_core
from kernels.signature cimport signature


cdef int open_instance(instance* made, const signature* accepted, session_core* core,
                       const version_name* served) noexcept nogil
cdef void close_instance(instance* used) noexcept nogil
cdef int reserve(device* place, uint8_t** buffer, size_t* capacity, size_t needed, failure* error) noexcept nogil
cdef void trim_buffers(instance* used) noexcept nogil
