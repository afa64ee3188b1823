"""The requests that wait for one model version, by level of priority; whoever owns the queue guards it with a lock."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from kernels.request cimport request
from kernels.request_list cimport request_list, unlink_from


cdef struct queue_policy:        # the rules of one level
    int64_t max_requests         # that may wait; 0 for any number
    int64_t timeout_ns           # how long one may wait; 0 for ever
    bint takes_timeouts          # a request may name a shorter time
    bint postpones               # who has waited too long goes behind the others, instead of being given up


cdef struct queue_level:
    queue_policy policy
    request_list waiting         # in the order in which they came
    request_list postponed       # in the order in which their time was up; taken when `waiting` is empty
    int64_t requests             # in both
    int64_t rows                 # of those in `waiting`


cdef struct request_queue:
    queue_level* levels          # the most urgent first
    int32_t n_levels
    int32_t default_level        # index of the one for requests that name none
    int64_t requests             # of all levels
    int64_t rows
    int64_t give_up_ns           # the earliest time at which a request is to be given up, or earlier; 0 for none
    bint is_give_up_stale        # it was that of a request that has left


cdef int open_queue(request_queue* made, int32_t n_levels) noexcept nogil
cdef void close_queue(request_queue* used) noexcept nogil
cdef void limit_wait(queue_level* level, request* admitted) noexcept nogil
cdef int64_t append_request(request_queue* target, queue_level* level, request* admitted) noexcept nogil
cdef int64_t find_earlier(int64_t one_ns, int64_t other_ns) noexcept nogil
cdef request* find_first(const request_queue* source) noexcept nogil
cdef request* find_first_from(const request_queue* source, int32_t index) noexcept nogil
cdef int64_t count_rows_before(const request_queue* source, const queue_level* level) noexcept nogil
cdef int64_t find_oldest_arrival(const request_queue* source) noexcept nogil
cdef int64_t find_give_up(request_queue* source) noexcept nogil
cdef request* take_expired(request_queue* target, int64_t now_ns, int64_t* wake_ns) noexcept nogil


# ---- what every request goes through: inline, since a call into another module cannot be


cdef inline queue_level* choose_level(request_queue* target, uint64_t priority) noexcept nogil:
    """Return the level of a request: 1 is the most urgent; 0, and what lies beyond the levels, is the default."""
    if priority == 0 or priority > <uint64_t> target.n_levels:
        return &target.levels[target.default_level]
    return &target.levels[priority - 1]


cdef inline bint is_full(const queue_level* level) noexcept nogil:
    return level.policy.max_requests > 0 and level.requests >= level.policy.max_requests


cdef inline bint has_expired(const request* member, int64_t now_ns) noexcept nogil:
    return member.give_up_ns != 0 and member.give_up_ns <= now_ns


cdef inline request* find_next(const request_queue* source, const request* member) noexcept nogil:
    """Return the request whose turn comes after that of a waiting one, or NULL."""
    cdef const queue_level* level = <const queue_level*> member.level
    if member.next != NULL:
        return member.next
    if not member.is_postponed and level.postponed.first != NULL:
        return level.postponed.first
    return find_first_from(source, <int32_t> (level - source.levels) + 1)


cdef inline void unlink_request(request_queue* target, request* leaving) noexcept nogil:
    cdef queue_level* level = <queue_level*> leaving.level
    if leaving.is_postponed:
        unlink_from(&level.postponed, leaving)
    else:
        unlink_from(&level.waiting, leaving)
        level.rows -= leaving.rows
    level.requests -= 1
    target.requests -= 1
    target.rows -= leaving.rows
    if leaving.give_up_ns != 0 and leaving.give_up_ns == target.give_up_ns:
        target.is_give_up_stale = True
