"""The core of an engine: what its data plane works on, from nothing served to nothing served."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from kernels.dispatch cimport engine_core
from kernels.executor cimport open_executor
from kernels.idempotency cimport close_book, open_book
from kernels.parking cimport free_lot, open_lot
from kernels.request cimport close_pool, open_pool
from kernels.response_cache cimport close_cache, open_cache
from kernels.routes cimport create_routes, free_routes, route_table
from kernels.sequence_gate cimport close_gate, open_gate
from kernels.trace cimport close_traces, open_traces

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    CACHE_LINE_BYTES = 64


cdef engine_core* create_core(int workers, int64_t max_queue_requests, int64_t max_pending_bytes,
                              int64_t cache_bytes, int64_t keyed_bytes, int64_t keyed_life_ns, uint64_t seed) except NULL:
    """Make a core with its threads, and an empty table; MemoryError when there is no memory, or no thread."""
    cdef engine_core* made = NULL
    if posix_memalign(<void**> &made, CACHE_LINE_BYTES, sizeof(engine_core)) != 0:
        raise MemoryError
    memset(made, 0, sizeof(engine_core))
    open_gate(&made.gate, seed, &made.sections, &made.elders)
    if open_parts(made, cache_bytes) != 0 or open_book(&made.keyed, keyed_bytes, keyed_life_ns) != 0:
        free_core(made)
        raise MemoryError
    if open_executor(&made.pool, workers) != 0:
        free_core(made)
        raise MemoryError("no memory or no thread for the engine's timer")
    made.lot.pending_bytes = &made.pending_bytes
    made.lot.max_pending_bytes = max_pending_bytes
    made.lot.max_parked = max_queue_requests
    made.keyed.pending_bytes = &made.pending_bytes
    made.keyed.max_pending_bytes = max_pending_bytes
    made.keyed.max_waiting = max_queue_requests
    return made


cdef int open_parts(engine_core* made, int64_t cache_bytes) noexcept:
    """All but the executor. 0, or -1 without memory."""
    made.table = create_routes(0)
    if open_pool(&made.requests) != 0 or open_traces(&made.traces) != 0 or open_lot(&made.lot, &made.pool) != 0:
        return -1
    return -1 if open_cache(&made.cache, cache_bytes) != 0 or made.table == NULL else 0


cdef void free_core(engine_core* used) noexcept:
    """Free a core whose executor is closed, or was never opened, and that nobody uses any more."""
    free_routes(<route_table*> used.table)
    free(used.elders)
    close_pool(&used.requests)
    close_traces(&used.traces)
    close_cache(&used.cache)
    close_book(&used.keyed)
    free_lot(&used.lot)
    close_gate(&used.gate)
    free(used)
