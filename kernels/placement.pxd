"""Where a model's batches run: on a worker, or inline on the I/O thread that read the requests."""

from libc.stdint cimport int32_t, int64_t

from kernels.instance cimport instance
from kernels.signature cimport signature

cdef enum placement_mode:
    PLACE_MEASURED = 0     # inline once it is known to be quick
    PLACE_WORKER = 1       # never inline
    PLACE_INLINE = 2       # always


cdef struct placement:
    int mode
    int64_t limit_ns       # what a quick model's largest batch takes at most
    bint is_measurable     # its largest batch can be made up and is small
    bint is_inline         # outcome
    int32_t probes         # runs of the largest batch that were measured
    int32_t overruns       # those of them that took too long
    int64_t runs           # since it was decided last
    int64_t pause          # runs until the next measurement


cdef void open_placement(placement* made, const signature* accepted) noexcept nogil
cdef bint can_run_zeros(const signature* accepted) noexcept nogil
cdef void place_next(placement* place, instance* used) noexcept nogil
