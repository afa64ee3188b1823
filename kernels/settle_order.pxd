"""Has the requests of a version settled in the order in which they left its queue, whichever instance is done first."""

from kernels.request cimport request


cdef struct settle_order:
    bint is_kept
    bint is_settling         # somebody settles what has come to the front
    request* first           # the first that left the queue and is not settled, linked by `after`
    request* last


cdef void line_up(settle_order* order, request* batch) noexcept nogil
cdef request* take_front(settle_order* order) noexcept nogil
