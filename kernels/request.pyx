"""The pool of requests: decoding buffers and small replies are kept and used again."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc

from kernels.alignment cimport shift_for
from kernels.codec cimport bytes_view, clear_request_view, free_request_view, init_request_view
from kernels.status cimport OK
from kernels.sync cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    KEPT_REQUESTS = 4096        # idle requests a pool holds on to
    KEPT_BYTES = 16384          # a larger reply or scratch goes back to the allocator


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


cdef void reset_request(request* used) noexcept nogil:
    clear_request_view(&used.view)
    if used.reply_capacity > KEPT_BYTES:
        free(used.reply_block)
        used.reply_block = used.reply = NULL
        used.reply_capacity = 0
    if used.scratch_capacity > KEPT_BYTES:
        free(used.scratch)
        used.scratch = NULL
        used.scratch_capacity = 0
    used.message = NULL
    used.message_size = 0
    used.version_hint = bytes_view(NULL, 0)
    used.deadline_ns = 0
    used.batcher = NULL
    used.state = FRESH
    used.cancelled = False
    used.reply_size = 0
    used.error.code = OK


cdef void free_request(request* unused) noexcept nogil:
    free_request_view(&unused.view)
    free(unused.inputs)
    free(unused.outputs)
    free(unused.scratch)
    free(unused.reply_block)
    free(unused)
