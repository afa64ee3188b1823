"""The Python object around one engine_core; a transport keeps it alive and uses its core."""

from libc.stdint cimport int32_t, int64_t

from kernels.batcher cimport batcher
from kernels.dispatch cimport engine_core
from kernels.parking cimport DormantModel
from kernels.shared_memory cimport SharedMemory
from kernels.signature cimport signature
from kernels.version_table cimport LoadedVersion


cdef class Engine:
    cdef engine_core* core   # on cache lines of its own, as its read sections need
    cdef object _lock        # over the versions and the published table; held for moments
    cdef object _retiring    # over waiting for batchers, which may take as long as a run; taken before _lock
    cdef dict _versions      # (name, version) -> LoadedVersion, DormantModel or str, the reason why it is neither
    cdef dict _trace_rates   # model name, "" for all others -> one request in so many, 0 for none
    cdef dict _labels        # name -> {label: version}
    cdef dict _past          # (name, version) -> PastCounts of what has been in memory before
    cdef dict _faults        # (name, version) of each ensemble -> None, or the reason why it cannot run
    cdef list _elders        # LoadedVersions that were replaced and whose sequences go on, the latest last
    cdef set _apart          # LoadedVersions and DormantModels that nobody can reach, not yet or no longer, until retired
    cdef int64_t _serial     # of the version that was prepared last
    cdef bint _closed
    cdef int _placement      # placement_mode of every version
    cdef int64_t _inline_limit_ns
    cdef int _process        # that made the engine: a fork has none of its threads
    cdef int64_t _sequence_drain_us  # how long sequences of a replaced version may go on
    cdef readonly int64_t max_queue_requests
    cdef readonly int64_t max_pending_bytes
    cdef readonly SharedMemory shared_memory   # the regions that requests may name

    cdef int64_t find_trace_rate(self, str name) except -1
    cdef LoadedVersion open_version(self, LoadedVersion made, str name, int64_t version, signature* accepted,
                                    int32_t n_instances, int32_t n_levels, object max_queue_requests)
    cdef int check_open(self) except -1
    cdef int open_instances(self, LoadedVersion made, int32_t buffer_sets) except -1
    cdef int reserve_alarms(self, size_t reachable) except -1
    cdef int place_parked(self, DormantModel woken) except -1
    cdef dict choose_labels(self, dict versions, dict changed)
    cdef int await_sequences(self, object entry, int64_t until_ns) except -1
    cdef int retire_version(self, object entry) except -1
