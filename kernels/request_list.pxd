"""Requests in a row, linked through their own `next` and `previous`: each is in at most one such list."""

from kernels.request cimport request


cdef struct request_list:
    request* first
    request* last


# Inline, since a call into another module cannot be.


cdef inline void link_last(request_list* target, request* added) noexcept nogil:
    added.next = NULL
    added.previous = target.last
    if target.last == NULL:
        target.first = added
    else:
        target.last.next = added
    target.last = added


cdef inline void unlink_from(request_list* target, request* leaving) noexcept nogil:
    if leaving.previous == NULL:
        target.first = leaving.next
    else:
        leaving.previous.next = leaving.next
    if leaving.next == NULL:
        target.last = leaving.previous
    else:
        leaving.next.previous = leaving.previous
    leaving.next = NULL
    leaving.previous = NULL
