"""Steps from run to run as an odometer does; what is equal in both tensors at the end of their shapes makes runs longer."""

from libc.stdint cimport int32_t, int64_t


cdef void open_corner(corner_walk* walk, const int64_t* small, const int64_t* large, int32_t rank) noexcept nogil:
    """Begin with the first run, if there is any. No dimension of `small` is above that of `large`, which has a size."""
    cdef int64_t step = 1
    cdef int32_t axis = rank - 1
    walk.run = walk.left = 1
    walk.place = 0
    while axis >= 0:
        walk.run *= small[axis]
        step *= large[axis]
        axis -= 1
        if small[axis + 1] != large[axis + 1]:
            break
    walk.rank = axis + 1
    while axis >= 0:
        walk.left *= small[axis]
        walk.sizes[axis], walk.steps[axis], walk.indices[axis] = small[axis], step, 0
        step *= large[axis]
        axis -= 1
    if walk.run == 0:
        walk.left = 0


cdef void step_corner(corner_walk* walk) noexcept nogil:
    """Go on to the next run."""
    cdef int32_t axis = walk.rank - 1
    walk.left -= 1
    while axis >= 0:
        walk.indices[axis] += 1
        walk.place += walk.steps[axis]
        if walk.indices[axis] < walk.sizes[axis]:
            return
        walk.place -= walk.steps[axis] * walk.sizes[axis]
        walk.indices[axis] = 0
        axis -= 1
