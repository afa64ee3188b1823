"""Lays outputs out for the next step of an ensemble: numbers and strings as the wire has them, without its frame."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from kernels.alignment cimport align
from kernels.response cimport output_view


cdef size_t kept_size(const output_view* outputs, int32_t count) noexcept nogil:
    """Return the bytes that keep_outputs lays out; the last output ends with them."""
    return last_place(outputs, count) + (outputs[count - 1].content.size if count > 0 else 0)


cdef size_t last_place(const output_view* outputs, int32_t count) noexcept nogil:
    """Return where the last output begins."""
    cdef size_t place = 0
    cdef int32_t index
    for index in range(count - 1):
        place = align(place + outputs[index].content.size)
    return place


cdef void keep_outputs(kept_outputs* kept, const output_view* outputs, int32_t count, void* place) noexcept nogil:
    """Copy outputs to `place`, which is aligned, and describe them; one without data is left to the caller to fill in."""
    cdef uint8_t* target = <uint8_t*> place
    cdef size_t offset = 0, size
    cdef kept_tensor* tensor
    cdef int32_t index
    for index in range(count):
        tensor = &kept.tensors[index]
        size = outputs[index].content.size
        tensor.datatype = outputs[index].datatype
        tensor.rank = outputs[index].rank
        memcpy(tensor.shape, outputs[index].shape, <size_t> outputs[index].rank * sizeof(int64_t))
        tensor.content.data = target + offset
        tensor.content.size = size
        if outputs[index].content.data != NULL and size > 0:
            memcpy(target + offset, outputs[index].content.data, size)
        offset = align(offset + size)
