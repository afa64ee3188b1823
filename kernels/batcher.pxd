"""One model version's queue: admits requests, forms batches of what has arrived, runs them and settles every caller."""

from libc.stdint cimport int32_t, int64_t

from kernels.executor cimport executor, task
from kernels.instance cimport instance, version_name
from kernels.placement cimport placement
from kernels.request cimport request
from kernels.signature cimport signature
from kernels.statistics cimport counters, statistics
from kernels.sync cimport pthread_cond_t, pthread_mutex_t
from kernels.trace cimport trace_sampling


cdef struct batcher:
    task task                # first: a task pointer is a batcher pointer
    executor* pool
    signature accepted
    int64_t version
    version_name served      # model name and version as replies carry them
    int64_t delay_ns
    int64_t max_queued       # requests
    int64_t* pending_bytes   # the engine's count of message bytes that wait or run
    int64_t max_pending_bytes
    pthread_mutex_t lock     # guards what follows
    pthread_cond_t idle      # signalled when nothing is queued, running or scheduled
    request* first
    request* last
    int64_t queued
    int64_t queued_rows
    int64_t last_used_ns     # when the latest request arrived, or the version was put in place
    int64_t alarm_ns         # the alarm that is set, 0 for none
    int32_t running          # batches
    bint scheduled           # in the executor's ready list
    bint hurried             # a queued request would expire within the delay: run without waiting for more
    bint closing             # the same, for a drain
    instance* instances      # all, as one array
    int32_t n_instances
    placement place          # where runs take place; changed by the run that set is_placing, outside the lock
    bint is_placing
    instance* unused         # those that do not run
    statistics counts        # of this version, since it was loaded
    trace_sampling traced


cdef int open_batcher(batcher* made, executor* pool, const signature* accepted, const char* name, size_t name_size,
                      int64_t version, int32_t n_instances) noexcept nogil
cdef void close_batcher(batcher* used) noexcept nogil
cdef void admit_request(batcher* target, request* admitted) noexcept nogil
cdef void cancel_request(request* unwanted) noexcept nogil
cdef void settle_request(request* settled) noexcept nogil
cdef void count_refusal(batcher* target, const request* refused) noexcept nogil
cdef int64_t read_counts(batcher* target, counters* total, int64_t* running, bint* is_inline) noexcept nogil
cdef void set_trace_rate(batcher* target, int64_t rate) noexcept nogil
cdef int64_t read_statistics(batcher* target, statistics* copied) noexcept nogil
cdef void reset_counts(batcher* target) noexcept nogil
cdef bint read_use(batcher* target, int64_t* last_used_ns) noexcept nogil
cdef bint wait_idle(batcher* target, int64_t until_ns) noexcept nogil
