"""The sessions that are the instances of one model, each with a thread of its own."""

from libc.stdint cimport int32_t

from kernels.batcher cimport batcher


cdef int start_lanes(batcher* queue, tuple sessions, int32_t buffer_sets) except -1
