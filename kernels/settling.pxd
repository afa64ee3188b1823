"""The end of a request: it goes back to its owner with its reply or its error; no lock is held."""

from kernels.request cimport request

cdef void settle_request(request* settled) noexcept nogil
cdef void settle_list(request* settled) noexcept nogil
cdef void fail_request(request* refused, int code, const char* text) noexcept nogil
cdef void set_error(request* refused, int code, const char* text) noexcept nogil
