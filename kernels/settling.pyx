"""Hands requests back to their owners, exactly once each."""

from libc.stdio cimport snprintf

from kernels.batcher cimport batcher
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport SETTLED, request
from kernels.sync cimport counter_add, int_store


cdef void settle_request(request* settled) noexcept nogil:
    """Hand a request with its reply or error to its owner. The engine touches it no more."""
    cdef batcher* home = <batcher*> settled.batcher
    if home != NULL:
        counter_add(home.pending_bytes, -settled.held_bytes)
    int_store(&settled.state, SETTLED)
    settled.done(settled)


cdef void settle_list(request* settled) noexcept nogil:
    """Settle requests that are linked by `next`, each with what stands in it."""
    cdef request* following
    while settled != NULL:
        following = settled.next
        settle_request(settled)
        settled = following


cdef void fail_request(request* refused, int code, const char* text) noexcept nogil:
    set_error(refused, code, text)
    settle_request(refused)


cdef void set_error(request* refused, int code, const char* text) noexcept nogil:
    refused.error.code = code
    snprintf(refused.error.text, FAILURE_TEXT_BYTES, "%s", text)
