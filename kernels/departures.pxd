"""The versions of an engine that nobody can reach any more, until they have finished and are freed."""

from libc.stdint cimport int64_t

from kernels.dispatch cimport engine_core
from kernels.parking cimport DormantModel
from kernels.version_table cimport LoadedVersion


cdef class Departures:
    cdef engine_core* core   # the engine's, as is the lock
    cdef object lock         # over what the engine serves, and what follows; held for moments
    cdef object retiring     # over waiting for batchers, which may take as long as a run; taken before the lock
    cdef set apart           # LoadedVersions and DormantModels that nobody can reach, not yet or no longer, until retired
    cdef list elders         # LoadedVersions that were replaced and whose sequences go on, the latest last
    cdef int64_t drain_us    # how long those may
    cdef bint closing        # the engine is: nothing is waited for that need not be

    cdef int keep_elders(self, list replaced) except -1
    cdef int place_parked(self, DormantModel woken) except -1
    cdef int await_sequences(self, object entry, int64_t until_ns) except -1
    cdef int retire_version(self, LoadedVersion retired) except -1
