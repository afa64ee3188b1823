"""Where requests wait for a model that is not in memory, and where the control plane hears that it is wanted."""

from libc.stdint cimport int64_t

from kernels.executor cimport executor, task
from kernels.request cimport request
from kernels.sync cimport pthread_cond_t, pthread_mutex_t


cdef enum dormant_stage:
    UNASKED = 0    # not in the lot's list
    WANTED = 1     # there, for take_wanted
    TAKEN = 2      # there, and being loaded


cdef struct dormant:             # a model that is not in memory; all its routes lead here
    dormant* next                # the lot's list of those that were asked for
    dormant* previous
    char* name                   # owned
    int stage                    # dormant_stage
    request* first
    request* last
    int64_t parked               # requests


cdef struct parking_lot:
    task task                    # first: a task pointer is a lot pointer; only its alarm is used
    executor* pool
    int64_t* pending_bytes       # the engine's count of message bytes that wait or run
    int64_t max_pending_bytes
    int64_t max_parked           # requests for one model
    pthread_mutex_t lock         # guards what follows, and every dormant
    pthread_cond_t wanted        # signalled when a model is, and when the lot is closed
    dormant* first
    dormant* last
    int64_t alarm_ns             # the alarm that is set, 0 for none
    bint closed


cdef class DormantModel:
    cdef dormant core


cdef int open_lot(parking_lot* made, executor* pool) noexcept nogil
cdef void close_lot(parking_lot* lot) noexcept nogil
cdef void free_lot(parking_lot* lot) noexcept nogil
cdef int park_request(parking_lot* lot, dormant* target, request* parked) noexcept nogil
cdef void cancel_parked(parking_lot* lot, request* unwanted) noexcept nogil
cdef object await_wanted(parking_lot* lot, double timeout_s)
cdef request* take_parked(parking_lot* lot, dormant* woken) noexcept nogil
