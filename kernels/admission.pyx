"""Foresees when a request would be answered at the earliest, and refuses one whose deadline is before that.

Each part of the estimate is rather too small than too large: how long runs take (service_time.pyx), that what waits fills
whole batches, that every instance takes its share, and that a run under way ends when it is expected to. So nothing is
refused that could have made it unless runs are suddenly quicker than the quick ones of before; and since a request that
has nobody to wait for is never refused, that is learned.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf

from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport request
from kernels.request_queue cimport choose_level, count_rows_before
from kernels.service_time cimport expect_run
from kernels.status cimport EXHAUSTED

cdef enum:
    NS_PER_MS = 1_000_000


cdef bint comes_too_late(const workload* load, request* asked) noexcept nogil:
    """Whether a request with a deadline cannot be answered by it; its error and when to try again are set then."""
    cdef int64_t wait_ns = foresee_wait(load, asked), run_ns = expect_run(load.known, asked.rows), late_ns
    if wait_ns <= 0:
        return False
    late_ns = asked.arrival_ns + wait_ns + run_ns - asked.deadline_ns
    if late_ns <= 0:
        return False
    asked.retry_ns = late_ns
    asked.error.code = EXHAUSTED
    snprintf(asked.error.text, FAILURE_TEXT_BYTES,
             "the request would be answered %.3f ms after its deadline: %ld requests wait and a run of %ld rows takes "
             "%.3f ms", <double> late_ns / NS_PER_MS, <long> load.queue.requests, <long> asked.rows,
             <double> run_ns / NS_PER_MS)
    return True


cdef int64_t foresee_wait(const workload* load, const request* asked) noexcept nogil:
    """Return for how long a request that comes now waits at least for those before it."""
    cdef int64_t rows_before = count_rows_before(load.queue, choose_level(<request_queue*> load.queue, asked.priority))
    cdef int64_t rounds = rows_before // max(load.max_batch_size, <int64_t> 1) // load.n_instances
    cdef int64_t wait_ns = rounds * expect_run(load.known, load.max_batch_size)
    if not load.has_room and load.n_instances == 1:
        wait_ns += max(load.taken_ns + expect_run(load.known, load.taken_rows) - asked.arrival_ns, <int64_t> 0)
    return wait_ns
