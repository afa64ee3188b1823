"""Finds the replaced version that still has a request's sequence."""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcmp

from kernels.batcher cimport batcher
from kernels.codec cimport bytes_view
from kernels.failure cimport failure
from kernels.request cimport request
from kernels.status cimport OK
from kernels.version_sequences cimport keeps_sequence


cdef batcher* find_elder(const elder_list* elders, batcher* target, int64_t version, request* asked) noexcept nogil:
    """Return which version that left the table has the request's sequence, or NULL: also when `target` has it.

    The request's error stays as it is unless there is one.

    Parameters
    ----------
    elders
        NULL without any; the caller holds a read section open.
    target
        Where the request goes otherwise, NULL for nowhere.
    version
        The only one that will do; 0 or below for any.
    """
    cdef failure routed = asked.error
    cdef batcher* elder = NULL
    cdef int32_t index
    if elders == NULL or (target != NULL and target.sequences != NULL and keeps_sequence(target, asked)):
        asked.error = routed
        return NULL
    for index in range(elders.count):
        if elder == NULL and is_wanted(elders.members[index], version, asked) and keeps_sequence(
                elders.members[index], asked):
            elder = elders.members[index]
    asked.error = routed
    if elder != NULL:
        asked.error.code = OK
    return elder


cdef bint is_wanted(const batcher* elder, int64_t version, const request* asked) noexcept nogil:
    cdef bytes_view model = asked.view.model_name
    if elder.served.model_size != model.size or memcmp(elder.served.model, model.data, model.size) != 0:
        return False
    return version <= 0 or version == elder.version
