"""When a batch of what waits is to be run, how large, and why: the options of dynamic batching."""

from libc.stdint cimport int32_t, int64_t

from kernels.request cimport request
from kernels.request_queue cimport request_queue
from kernels.signature cimport signature

cdef enum:
    MAX_PREFERRED_SIZES = 64

cdef enum dispatch_reason:       # in the order of the counters
    STAY = 0                     # nothing runs yet
    BY_FULL = 1                  # no more rows fit, or the model runs one request at a time
    BY_PREFERENCE = 2            # as many rows as preferred
    BY_DELAY = 3                 # the oldest has waited for the delay; always so where none is set
    BY_DEADLINE = 4              # one would have to be given up before the delay is over
    BY_LONELINESS = 5            # one request, nobody else waits or runs
    BY_DRAIN = 6                 # the version is on its way out, or the server
    DISPATCH_REASONS = 7


cdef struct batch_rules:
    int64_t delay_ns
    int64_t[MAX_PREFERRED_SIZES] preferred   # rows, ascending
    int32_t n_preferred
    int64_t enough_rows          # with so many queued a batch waits for no more; 0 for as many as fit
    bint keeps_order             # no request overtakes one that does not fit the batch
    bint skips_delay_alone       # a request that nobody is beside does not wait for others


cdef struct batch_choice:
    int reason                   # dispatch_reason
    int64_t max_rows             # of the batch


cdef batch_choice choose_batch(const batch_rules* rules, const signature* accepted, request_queue* source,
                               int64_t now_ns, bint is_draining, bint is_busy) noexcept nogil
cdef request* take_batch(const batch_rules* rules, const signature* accepted, request_queue* source, int64_t now_ns,
                         int64_t max_rows, int64_t* rows) noexcept nogil
