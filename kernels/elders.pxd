"""Versions that no route leads to any more, and whose sequences go on."""

from libc.stdint cimport int32_t, int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request


cdef struct elder_list:
    int32_t count
    batcher** members        # the one that left last comes first


cdef batcher* find_elder(const elder_list* elders, batcher* target, int64_t version, request* asked) noexcept nogil
