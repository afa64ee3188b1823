"""The line of requests that run or have run, for versions that answer in order; under the batcher's lock."""

from kernels.request cimport SETTLED, request
from kernels.sync cimport int_load


cdef void line_up(settle_order* order, request* batch) noexcept nogil:
    """Put the requests of a batch at the end of the line."""
    while batch != NULL:
        batch.after = NULL
        if order.last == NULL:
            order.first = batch
        else:
            order.last.after = batch
        order.last = batch
        batch = batch.next


cdef request* take_front(settle_order* order) noexcept nogil:
    """Take the requests that stand at the front and whose outcome stands, linked by `after`; NULL without any."""
    cdef request* front = order.first
    cdef request* end = NULL
    while order.first != NULL and int_load(&order.first.state) == SETTLED:
        end = order.first
        order.first = end.after
    if end == NULL:
        return NULL
    end.after = NULL
    if order.first == NULL:
        order.last = NULL
    return front
