"""Walks through the runs of elements that a tensor has side by side in a larger one, in whose corner it lies."""

from libc.stdint cimport int32_t, int64_t

from kernels.session cimport MAX_RANK


cdef struct corner_walk:
    int64_t run                    # elements that lie side by side in both
    int64_t left                   # runs to go
    int64_t place                  # where the next one begins in the larger tensor, in elements
    int32_t rank                   # dimensions that are stepped through, the first ones
    int64_t[MAX_RANK] sizes        # of the smaller one
    int64_t[MAX_RANK] steps        # from one index to the next in the larger one, in elements
    int64_t[MAX_RANK] indices


cdef void open_corner(corner_walk* walk, const int64_t* small, const int64_t* large, int32_t rank) noexcept nogil
cdef void step_corner(corner_walk* walk) noexcept nogil
