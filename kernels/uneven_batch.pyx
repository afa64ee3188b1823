"""The memory of an instance for uneven batches: made where its model has such, and trimmed after large replies."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc

cdef enum:
    KEPT_BYTES = 8 * 1024 * 1024    # more than that for cropped outputs is freed after its batch


cdef uneven_batch* create_uneven(int32_t n_outputs) noexcept nogil:
    """Return an empty one, NULL without memory."""
    cdef uneven_batch* made = <uneven_batch*> calloc(1, sizeof(uneven_batch))
    if made == NULL:
        return NULL
    made.taken = <int64_t*> calloc(n_outputs + 1, sizeof(int64_t))
    if made.taken == NULL:
        free(made)
        return NULL
    return made


cdef void free_uneven(uneven_batch* used) noexcept nogil:
    """Free one, or nothing for NULL."""
    if used != NULL:
        free(used.taken)
        free(used.cropped)
        free(used)


cdef int reserve_cropped(uneven_batch* used, size_t size) noexcept nogil:
    """Make room for one reply's cropped outputs; what was there is lost. 0, or -1 without memory."""
    used.position = 0
    if size <= used.capacity:
        return 0
    free(used.cropped)
    used.cropped = <uint8_t*> malloc(size)
    used.capacity = size if used.cropped != NULL else 0
    return 0 if used.cropped != NULL else -1


cdef void trim_cropped(uneven_batch* used) noexcept nogil:
    if used.capacity > KEPT_BYTES:
        free(used.cropped)
        used.cropped = NULL
        used.capacity = 0
