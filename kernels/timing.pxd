"""What a reply says about its request's way, as response parameters, when the request asks for it."""

from libc.stdint cimport int32_t, int64_t

from kernels.response cimport response_parameter

cdef enum:
    TIMING_PARAMETERS = 4


cdef int32_t describe_timing(int64_t queue_ns, int64_t gather_ns, int64_t run_ns, int64_t rows,
                             response_parameter* timing) noexcept nogil
