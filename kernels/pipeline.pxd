"""One session's lane and the sets of buffers that go through it: gathered, run, encoded, each on another thread."""

from libc.stdint cimport int32_t, int64_t

from kernels.executor cimport executor, task
from kernels.failure cimport failure
from kernels.instance cimport instance, version_name
from kernels.lane cimport lane
from kernels.request cimport request
from kernels.session cimport session_core
from kernels.signature cimport signature


cdef struct pipeline   # below; sets lead back to theirs


cdef struct buffer_set:
    task task                # first: on the lane it runs the batch, on a worker it encodes it
    buffer_set* next         # the pipeline's unused sets
    pipeline* home
    instance buffers
    request* batch           # what is on its way, NULL when nothing is
    int64_t rows
    request* rest            # of a batch that failed: to be run one by one
    int failed
    failure error


cdef struct pipeline_owner:  # whose batches they are, and what it is told; no lock is held
    executor* pool
    void* batcher            # the owner's own
    void (*settle)(pipeline_owner* owner, instance* used, request* batch, int64_t rows,
                   const failure* error) noexcept nogil
    void (*session_freed)(pipeline_owner* owner) noexcept nogil
    void (*set_freed)(pipeline_owner* owner, buffer_set* used) noexcept nogil


cdef struct pipeline:
    lane runner
    pipeline_owner* owner
    buffer_set* sets         # all, as one array
    int32_t n_sets
    buffer_set* unused       # under the owner's lock
    int pending              # batches that the session has not run yet; atomic


cdef int open_pipeline(pipeline* made, pipeline_owner* owner, const signature* accepted, session_core* core,
                       const version_name* served, int32_t n_sets) noexcept nogil
cdef void close_pipeline(pipeline* used) noexcept nogil
cdef void start_batch(buffer_set* used, request* batch, int64_t rows) noexcept nogil
cdef int warm_up(pipeline* used, failure* error) noexcept nogil
