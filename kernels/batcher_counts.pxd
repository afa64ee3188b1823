"""What is known of a batcher from outside: its counters, how much waits and runs, and what is traced."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request
from kernels.statistics cimport counters, statistics

cdef void count_refusal(batcher* target, const request* refused) noexcept nogil
cdef int64_t read_counts(batcher* target, counters* total, int64_t* running, bint* is_inline) noexcept nogil
cdef int64_t read_statistics(batcher* target, statistics* copied) noexcept nogil
cdef bint read_use(batcher* target, int64_t* last_used_ns) noexcept nogil
cdef void reset_counts(batcher* target) noexcept nogil
cdef void set_trace_rate(batcher* target, int64_t rate) noexcept nogil
