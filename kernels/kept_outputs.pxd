"""Outputs that stay in the server: of a step of an ensemble, whose reply nobody sends.

They lie one behind the other in the request's reply, without the wire's frame, each aligned for a session to run on.
"""

from libc.stdint cimport int32_t, int64_t

from kernels.response cimport output_view
from kernels.session cimport MAX_RANK
from kernels.wire cimport bytes_view


cdef struct kept_tensor:     # one requested output
    int datatype
    int32_t rank
    int64_t shape[MAX_RANK]
    bytes_view content       # in the reply


cdef struct kept_outputs:    # of one request
    kept_tensor* tensors     # one per requested output, in their order; the owner's
    int64_t ended_ns         # when its batch had ended, and how long that took
    int64_t queued_ns        # how long the request waited for it
    int64_t gather_ns
    int64_t run_ns
    int64_t encode_ns


cdef size_t kept_size(const output_view* outputs, int32_t count) noexcept nogil
cdef size_t last_place(const output_view* outputs, int32_t count) noexcept nogil
cdef void keep_outputs(kept_outputs* kept, const output_view* outputs, int32_t count, void* place) noexcept nogil
