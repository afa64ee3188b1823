"""The pool of requests: decoding buffers and small replies are kept and used again."""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc

from kernels.alignment cimport shift_for
from kernels.codec cimport bytes_view, clear_request_view, free_request_view, init_request_view
from kernels.shared_memory cimport drop_region, region
from kernels.status cimport OK
from kernels.sync cimport int_add, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    KEPT_REQUESTS = 4096        # idle requests a pool holds on to
    KEPT_BYTES = 16384          # a larger buffer goes back to the allocator
    SPARE_BYTES = 64            # more than was asked for, so that a slightly larger one still fits
    INITIAL_REGIONS = 4         # regions a request first has room for


cdef int open_pool(request_pool* pool) noexcept nogil:
    """Make an empty pool. 0, or -1 without memory."""
    pool.free = NULL
    pool.kept = 0
    return pthread_mutex_init(&pool.lock, NULL)


cdef void close_pool(request_pool* pool) noexcept nogil:
    """Free every idle request. Those in use must have been given back."""
    cdef request* idle = pool.free
    cdef request* following
    while idle != NULL:
        following = idle.next
        free_request(idle)
        idle = following
    pool.free = NULL
    pthread_mutex_destroy(&pool.lock)


cdef request* take_request(request_pool* pool) noexcept nogil:
    """Return a fresh request, or NULL without memory."""
    cdef request* taken
    pthread_mutex_lock(&pool.lock)
    taken = pool.free
    if taken != NULL:
        pool.free = taken.next
        pool.kept -= 1
    pthread_mutex_unlock(&pool.lock)
    if taken != NULL:
        return taken
    taken = <request*> calloc(1, sizeof(request))
    if taken != NULL and init_request_view(&taken.view) != 0:
        free(taken)
        return NULL
    return taken


cdef void give_back_request(request_pool* pool, request* used) noexcept nogil:
    """Return a settled or never submitted request to the pool; its reply is gone after this."""
    cdef bint keep
    reset_request(used)
    pthread_mutex_lock(&pool.lock)
    keep = pool.kept < KEPT_REQUESTS
    if keep:
        used.next = pool.free
        pool.free = used
        pool.kept += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        free_request(used)


cdef uint8_t* reserve_reply(request* target, size_t size, size_t aligned) noexcept nogil:
    """Return a buffer of at least `size` bytes for the reply, or NULL without memory.

    Its byte `aligned` lies as malloc aligns.
    """
    cdef size_t shift = shift_for(aligned)
    if size + shift > target.reply_capacity:
        free(target.reply_block)
        target.reply_block = <uint8_t*> malloc(size + shift)
        target.reply_capacity = size + shift if target.reply_block != NULL else 0
    target.reply = target.reply_block + shift if target.reply_block != NULL else NULL
    target.reply_size = size
    return target.reply


cdef void drop_reply(request* target) noexcept nogil:
    """Give a reply's memory back before the request is, if it is large; nobody may read it any more."""
    if target.reply_capacity > KEPT_BYTES:
        free(target.reply_block)
        target.reply_block = target.reply = NULL
        target.reply_capacity = 0


cdef int keep_region(request* target, region* held) noexcept nogil:
    """Have a region dropped when the request is given back. 0, or -1 without memory, when it is still the caller's."""
    cdef int32_t wanted
    cdef void* larger
    if target.n_regions == target.regions_capacity:
        wanted = max(2 * target.n_regions, INITIAL_REGIONS)
        larger = realloc(target.regions, <size_t> wanted * sizeof(void*))
        if larger == NULL:
            return -1
        target.regions = <region**> larger
        target.regions_capacity = wanted
    target.regions[target.n_regions] = held
    target.n_regions += 1
    return 0


cdef bint was_withdrawn(request* taken_in) noexcept nogil:
    """Tell whether a request was cancelled on its way from where it was parked; asked by who has just changed its state.

    A cancellation marks it and then looks at its state again: one of the two sees the other.
    """
    return taken_in.parked_ns != 0 and int_add(&taken_in.withdrawn, 0) != 0


cdef int reserve(void** buffer, size_t* capacity, size_t size) noexcept nogil:
    """Make a buffer of a request at least `size` bytes large; what it held is lost. 0, or -1 without memory."""
    if size <= capacity[0] and buffer[0] != NULL:
        return 0
    free(buffer[0])
    buffer[0] = malloc(size + SPARE_BYTES)
    capacity[0] = size + SPARE_BYTES if buffer[0] != NULL else 0
    return 0 if buffer[0] != NULL else -1


cdef void reset_request(request* used) noexcept nogil:
    clear_request_view(&used.view)
    drop_reply(used)
    trim(<void**> &used.scratch, &used.scratch_capacity)
    trim(<void**> &used.classes, &used.classes_capacity)
    while used.n_regions > 0:
        used.n_regions -= 1
        drop_region(used.regions[used.n_regions])
    used.has_deliveries = False
    used.message = NULL
    used.message_size = 0
    used.version_hint = bytes_view(NULL, 0)
    used.admitted = NULL
    used.deadline_ns = 0
    used.batcher = NULL
    used.state = FRESH
    used.cancelled = False
    used.withdrawn = False
    used.parked_ns = 0
    used.wants_timing = False
    used.is_missed = False
    used.priority = 0
    used.timeout_ns = used.retry_ns = 0
    used.reply_size = 0
    used.kept = NULL
    used.ensemble_run = NULL
    used.key = NULL
    used.joined = NULL
    used.is_replayed = used.is_for_key = False
    used.error.code = OK


cdef void trim(void** buffer, size_t* capacity) noexcept nogil:
    if capacity[0] > KEPT_BYTES:
        free(buffer[0])
        buffer[0] = NULL
        capacity[0] = 0


cdef void free_request(request* unused) noexcept nogil:
    free_request_view(&unused.view)
    free(unused.inputs)
    free(unused.outputs)
    free(unused.deliveries)
    free(unused.shapes)
    free(unused.regions)
    free(unused.scratch)
    free(unused.classes)
    free(unused.reply_block)
    free(unused)
