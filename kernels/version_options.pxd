"""How a version of a model is to run."""

from libc.stdint cimport int32_t, int64_t

from kernels.interface cimport Interface
from kernels.response_cache cimport response_cache
from kernels.sequence_rules cimport SequenceRules
from kernels.signature cimport signature
from kernels.uneven_rules cimport UnevenRules
from kernels.version_table cimport LoadedVersion


cdef class VersionOptions:
    cdef tuple sessions          # at least one
    cdef int64_t max_batch_size
    cdef int64_t queue_delay_us
    cdef int32_t instance_count
    cdef int32_t buffer_sets
    cdef object max_queue_requests   # None for the engine's own
    cdef bint cache_replies
    cdef Interface interface
    cdef SequenceRules sequences
    cdef UnevenRules uneven
    cdef object queueing         # QueueOptions

    cdef int describe(self, signature* accepted) except -1
    cdef int apply(self, LoadedVersion made, response_cache* cache) except -1
