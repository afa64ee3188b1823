"""What each version has counted: since it was loaded, and in earlier stays in memory."""

from kernels.statistics cimport statistics
from kernels.version_table cimport LoadedVersion


cdef class PastCounts:
    cdef statistics counts   # of the stays that are over
    cdef list leaving        # LoadedVersions that were put to rest and finish what they admitted


cdef int begin_counts(dict changes) except -1
cdef int set_rates(dict versions, dict rates) except -1
cdef int follow_counts(dict past, dict before, dict changes) except -1
cdef int end_stay(LoadedVersion gone) except -1
cdef dict describe_totals(dict versions, dict past, tuple key)
cdef object describe_version(dict versions, dict past, tuple key)
cdef dict describe_use(dict versions)
