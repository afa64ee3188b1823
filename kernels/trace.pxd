"""When each of some requests went from phase to phase: sampled as batches end, kept until Python takes them."""

from libc.stdint cimport int64_t

from kernels.request cimport request
from kernels.statistics cimport batch_times
from kernels.sync cimport pthread_mutex_t

cdef enum:
    TRACED_NAME_BYTES = 128
    TRACED_ID_BYTES = 64       # of a request's id; a longer one is cut
    KEPT_TRACES = 1024         # that nobody has taken yet; the next are dropped


cdef struct trace_record:
    char[TRACED_NAME_BYTES + 1] model
    char[TRACED_ID_BYTES + 1] request_id
    int64_t version
    int64_t arrival_ns         # monotonic, as all
    batch_times spent


cdef struct trace_book:
    pthread_mutex_t lock       # guards what follows; taken after any batcher's
    trace_record* records      # KEPT_TRACES of them once anything was traced
    int64_t kept
    int64_t dropped


cdef struct trace_sampling:    # of one version; under its batcher's lock
    trace_book* book
    int64_t rate               # one request in so many; 0 traces none
    int64_t passed             # since the last one


cdef int open_traces(trace_book* made) noexcept nogil
cdef void close_traces(trace_book* used) noexcept nogil
cdef void trace_batch(trace_sampling* sampling, const char* model, int64_t version, const request* batch,
                      const batch_times* spent) noexcept nogil
cdef tuple take_traces(trace_book* book)
