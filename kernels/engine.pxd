"""The Python object around one engine_core; a transport keeps it alive and uses its core."""

from libc.stdint cimport int32_t, int64_t

from kernels.batcher cimport batcher
from kernels.departures cimport Departures
from kernels.dispatch cimport engine_core
from kernels.shared_memory cimport SharedMemory
from kernels.signature cimport signature
from kernels.version_table cimport LoadedVersion


cdef class Engine:
    cdef engine_core* core   # on cache lines of its own, as its read sections need
    cdef object _lock        # over the versions and the published table; held for moments
    cdef Departures _departures   # what is replaced, and what is prepared and not yet in place
    cdef dict _versions      # (name, version) -> LoadedVersion, DormantModel or str, the reason why it is neither
    cdef dict _trace_rates   # model name, "" for all others -> one request in so many, 0 for none
    cdef dict _labels        # name -> {label: version}
    cdef dict _past          # (name, version) -> PastCounts of what has been in memory before
    cdef dict _faults        # (name, version) of each ensemble -> None, or the reason why it cannot run
    cdef int64_t _serial     # of the version that was prepared last, or of the plan of an ensemble that was new last
    cdef dict _plan_serials  # what a plan in place leads to -> its serial number
    cdef bint _closed
    cdef int _placement      # placement_mode of every version
    cdef int64_t _inline_limit_ns
    cdef int _process        # that made the engine: a fork has none of its threads
    cdef readonly int64_t max_queue_requests
    cdef readonly int64_t max_pending_bytes
    cdef readonly SharedMemory shared_memory   # the regions that requests may name

    cdef LoadedVersion open_version(self, LoadedVersion made, str name, int64_t version, signature* accepted,
                                    int32_t n_instances, int32_t n_levels, object max_queue_requests)
    cdef int check_open(self) except -1
    cdef int reserve_alarms(self, size_t reachable) except -1
