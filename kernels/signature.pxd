"""What a model version accepts: checks a decoded request against it and binds its tensors to the model's inputs."""

from libc.stdint cimport int64_t

from kernels.request cimport request
from kernels.session cimport session_core


cdef struct signature:
    session_core* core
    int64_t max_batch_size    # 0: the first dimension is no batch, one request a run


cdef int bind_request(const signature* accepted, request* target) noexcept nogil
cdef bint can_merge(const signature* accepted, const request* first, const request* other) noexcept nogil
