"""The Python object around one engine_core; a transport keeps it alive and uses its core."""

from libc.stdint cimport int64_t

from kernels.dispatch cimport engine_core


cdef class Engine:
    cdef engine_core* core   # on cache lines of its own, as its read sections need
    cdef object _lock        # serialises load, unload, drain and close
    cdef dict _versions      # (name, version) -> LoadedVersion or str, the reason why it is unavailable
    cdef bint _closed
    cdef readonly int64_t max_queue_requests
    cdef readonly int64_t max_pending_bytes

    cdef int replace_version(self, str name, int64_t version, object entry) except -1
