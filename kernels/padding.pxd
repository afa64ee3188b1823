"""Which requests of different lengths go into one batch, and how long that makes all of them."""

from libc.stdint cimport int64_t

from kernels.request cimport request
from kernels.session cimport session_core
from kernels.uneven_rules cimport MAX_LENGTHS, uneven_rules


cdef struct padded_extent:         # of a batch that is made up
    int64_t rows                   # 0 before its first request
    double alone                   # padded inputs' elements, were each request run by itself
    int64_t[MAX_LENGTHS] longest   # rounded up


cdef bint widen_extent(const uneven_rules* rules, padded_extent* extent, const request* member) noexcept nogil
cdef void measure_lengths(const uneven_rules* rules, const request* batch, int64_t* longest) noexcept nogil
cdef int check_lengths(const uneven_rules* rules, const session_core* core, request* target) noexcept nogil
