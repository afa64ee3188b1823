"""One model version's queue and what runs it: forms batches of what has arrived and settles every caller."""

from libc.stdint cimport int32_t, int64_t

from kernels.batch_rules cimport batch_rules
from kernels.executor cimport executor, task
from kernels.instance cimport instance, version_name
from kernels.pipeline cimport pipeline, pipeline_owner
from kernels.placement cimport placement
from kernels.request cimport request
from kernels.request_queue cimport request_queue
from kernels.response_cache cimport response_cache
from kernels.sequences cimport sequence_table
from kernels.service_time cimport service_time
from kernels.session cimport session_core
from kernels.settle_order cimport settle_order
from kernels.settling cimport settle_request
from kernels.signature cimport signature
from kernels.statistics cimport statistics
from kernels.sync cimport pthread_cond_t, pthread_mutex_t
from kernels.trace cimport trace_sampling


cdef struct batcher:
    task task                # first: a task pointer is a batcher pointer
    pipeline_owner owner     # what the pipelines know of the batcher
    executor* pool
    signature accepted
    int64_t version
    version_name served      # model name and version as replies carry them
    response_cache* cache    # where replies are kept, NULL where they are not
    int64_t serial           # of the version among all that the engine has had
    batch_rules rules
    bint refuses_late        # a request that could not be answered by its deadline is refused at once
    int64_t max_queued       # requests
    int64_t* pending_bytes   # the engine's count of message bytes that wait or run
    int64_t max_pending_bytes
    pthread_mutex_t lock     # guards what follows
    pthread_cond_t idle      # signalled when nothing is queued, running or scheduled, and at each release
    request_queue queue
    sequence_table* sequences  # owned; NULL for a model that keeps none
    settle_order order
    service_time known
    int64_t last_used_ns     # when the latest request arrived, or the version was put in place
    int64_t alarm_ns         # the alarm that is set, 0 for none
    int64_t taken_ns         # when the latest batch left the queue
    int64_t taken_rows       # of it
    int32_t running          # batches; of an ensemble, requests
    int32_t holds            # ensembles' plans that lead here: they may still admit requests
    bint scheduled           # in the executor's ready list
    bint closing             # for a drain: run without waiting for more
    instance* instances      # all, as one array
    int32_t n_instances
    placement place          # where runs take place; changed by the run that set is_placing, outside the lock
    bint is_placing
    instance* unused         # those that do not run
    pipeline* pipelines      # sessions with lanes of their own, instead of instances
    int32_t n_pipelines
    statistics counts        # of this version, since it was loaded
    trace_sampling traced


cdef int open_batcher(batcher* made, executor* pool, const signature* accepted, const char* name, size_t name_size,
                      int64_t version, int32_t n_instances, int32_t n_levels) noexcept nogil
cdef int open_lanes(batcher* made, session_core** cores, int32_t n_cores, int32_t n_sets) noexcept nogil
cdef void close_batcher(batcher* used) noexcept nogil
cdef void hold_batcher(batcher* held) noexcept nogil
cdef void release_batcher(batcher* held) noexcept nogil
cdef void wait_released(batcher* target) noexcept nogil
cdef void cancel_request(request* unwanted) noexcept nogil
cdef void begin_closing(batcher* target) noexcept nogil
cdef bint wait_idle(batcher* target, int64_t until_ns) noexcept nogil
