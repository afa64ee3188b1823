"""Makes and frees the core of an engine; dispatch.pxd has the struct."""

from libc.stdint cimport int64_t, uint64_t

from kernels.dispatch cimport engine_core

cdef engine_core* create_core(int workers, int64_t max_queue_requests, int64_t max_pending_bytes,
                              int64_t cache_bytes, int64_t keyed_bytes, int64_t keyed_life_ns, uint64_t seed) except NULL
cdef void free_core(engine_core* used) noexcept
