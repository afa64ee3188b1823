"""Whether a request may wait for a model version: refused at once is what would find no room or come too late."""

from libc.stdint cimport int64_t

from kernels.request cimport request
from kernels.request_queue cimport request_queue
from kernels.service_time cimport service_time


cdef struct workload:            # what a request finds that comes now
    const request_queue* queue
    const service_time* known
    int64_t max_batch_size
    int64_t n_instances          # batches that may run at a time
    bint has_room                # one of them is free
    int64_t taken_ns             # when the latest batch left the queue, and its rows
    int64_t taken_rows


cdef bint comes_too_late(const workload* load, request* asked) noexcept nogil
