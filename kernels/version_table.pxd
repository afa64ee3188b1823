"""A loaded version, and how the versions become the table that the data plane reads."""

from kernels.batcher cimport batcher
from kernels.dispatch cimport engine_core
from kernels.ensemble cimport Ensemble
from kernels.interface cimport Interface
from kernels.sequence_rules cimport SequenceRules
from kernels.uneven_rules cimport UnevenRules


cdef class LoadedVersion:
    cdef batcher queue           # its pool is NULL before it is opened and once it is retired
    cdef tuple sessions          # the instances; the batcher refers to the first one's signature; none of an ensemble
    cdef Ensemble ensemble       # likewise; None of a model
    cdef Interface interface     # likewise; None where callers see the session's own tensors
    cdef SequenceRules sequences  # likewise; None for a model that keeps none
    cdef UnevenRules uneven      # likewise; None where all requests of a batch have one shape
    cdef object awaiting         # held by who waits for its sequences to end, None likewise
    cdef object past             # PastCounts that its counts go to once it is idle; None unless it was put to rest


cdef list change_entries(dict versions, dict changes)
cdef dict choose_labels(dict before, dict versions, dict changed)
cdef int publish_routes(engine_core* core, dict versions, dict labels, dict plans) except -1
cdef int publish_elders(engine_core* core, list elders) except -1
