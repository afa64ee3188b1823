"""How long runs of a model version take, by their rows, as far as that is known."""

from libc.stdint cimport int64_t

cdef enum:
    SIZE_CLASSES = 24        # runs of 1 row, of 2 and 3, of 4 to 7, …; larger ones are in the last


cdef struct service_time:
    int64_t[SIZE_CLASSES] run_ns
    int64_t[SIZE_CLASSES] runs


cdef void note_run(service_time* known, int64_t rows, int64_t run_ns) noexcept nogil
cdef int64_t expect_run(const service_time* known, int64_t rows) noexcept nogil
