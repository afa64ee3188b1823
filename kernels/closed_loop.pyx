"""Keeps an engine busy from one native thread, as a transport without Python would: for measurements only.

The thread that drives submits, sleeps until half of what is outstanding has been settled, gives those requests back and
submits as many again. So the queue never runs dry, and the thread wakes once for many requests.
"""

from collections import namedtuple

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, open_request, submit_request
from kernels.engine cimport Engine
from kernels.request cimport request
from kernels.status cimport OK
from kernels.sync cimport (
    monotonic_ns, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)

LoopResult = namedtuple("LoopResult", "elapsed_ns failed reply_bytes")
LoopResult.__doc__ = """What a closed loop took, how many of its requests got no reply, and the size of all replies."""


cdef struct closed_loop:
    engine_core* core
    const bytes_view* messages   # used in turn
    int64_t n_messages
    int64_t unsent               # requests still to be submitted
    int64_t sent
    int64_t outstanding
    int64_t failed
    int64_t reply_bytes
    pthread_mutex_t lock         # guards what follows
    pthread_cond_t wake
    request* settled             # linked by `completed`
    int64_t waiting              # length of `settled`
    int64_t enough               # the driver sleeps until so many wait; 0 while it is awake


def drive_engine(Engine engine not None, messages, int64_t requests, int64_t window):
    """Submit `requests` requests and return once all are settled; without the GIL.

    Parameters
    ----------
    messages : sequence of bytes
        ModelInferRequests on the wire, sent in turn.
    window : int
        Requests that are outstanding at a time.

    Returns
    -------
    LoopResult
    """
    cdef closed_loop loop
    cdef list kept = list(messages)
    cdef int64_t started
    if not kept or requests < 1 or window < 1:
        raise ValueError("messages must not be empty; requests and window must be at least 1")
    cdef bytes_view* views = view_messages(kept)
    open_loop(&loop, engine.core, views, len(kept), requests)
    with nogil:
        started = monotonic_ns()
        run_loop(&loop, window)
        started = monotonic_ns() - started
        close_loop(&loop)
    free(views)
    if loop.unsent > 0:
        raise MemoryError
    return LoopResult(started, loop.failed, loop.reply_bytes)


cdef bytes_view* view_messages(list messages) except NULL:
    """Return views of bytes objects that the list keeps alive; the caller frees the array."""
    cdef bytes message
    for entry in messages:
        if not isinstance(entry, bytes):
            raise TypeError(f"messages must be bytes, given {type(entry).__name__}")
    cdef bytes_view* views = <bytes_view*> malloc(len(messages) * sizeof(bytes_view))
    cdef int64_t index
    if views == NULL:
        raise MemoryError
    for index in range(len(messages)):
        message = messages[index]
        views[index] = bytes_view(<const uint8_t*> <const char*> message, len(message))
    return views


cdef void open_loop(closed_loop* loop, engine_core* core, const bytes_view* messages, int64_t n_messages,
                    int64_t requests) noexcept:
    loop.core = core
    loop.messages = messages
    loop.n_messages = n_messages
    loop.unsent = requests
    loop.sent = loop.outstanding = loop.failed = loop.reply_bytes = loop.waiting = loop.enough = 0
    loop.settled = NULL
    pthread_mutex_init(&loop.lock, NULL)
    pthread_cond_init(&loop.wake, NULL)


cdef void close_loop(closed_loop* loop) noexcept nogil:
    pthread_mutex_destroy(&loop.lock)
    pthread_cond_destroy(&loop.wake)


cdef void run_loop(closed_loop* loop, int64_t window) noexcept nogil:
    """Keep up to `window` requests outstanding until all are settled; without memory the rest stays unsent."""
    cdef request* settled
    cdef bint starved = False
    while True:
        while loop.outstanding < window and loop.unsent > 0 and not starved:
            starved = submit_one(loop) != 0
        if loop.outstanding == 0:
            return
        settled = take_settled(loop, min((window + 1) // 2, loop.outstanding))
        give_back(loop, settled)


cdef int submit_one(closed_loop* loop) noexcept nogil:
    cdef request* made = open_request(loop.core)
    cdef const bytes_view* message = &loop.messages[loop.sent % loop.n_messages]
    if made == NULL:
        return -1
    made.message = message.data
    made.message_size = message.size
    made.context = loop
    made.done = settle_one
    loop.sent += 1
    loop.unsent -= 1
    loop.outstanding += 1
    submit_request(loop.core, made)
    return 0


cdef void settle_one(request* finished) noexcept nogil:
    """Leave a request to the driver; wake it when it has enough. From any thread."""
    cdef closed_loop* loop = <closed_loop*> finished.context
    pthread_mutex_lock(&loop.lock)
    finished.completed = loop.settled
    loop.settled = finished
    loop.waiting += 1
    if loop.waiting == loop.enough:
        pthread_cond_signal(&loop.wake)
    pthread_mutex_unlock(&loop.lock)


cdef request* take_settled(closed_loop* loop, int64_t enough) noexcept nogil:
    """Sleep until at least `enough` requests are settled; return all that are."""
    cdef request* settled
    pthread_mutex_lock(&loop.lock)
    loop.enough = enough
    while loop.waiting < enough:
        pthread_cond_wait(&loop.wake, &loop.lock)
    loop.enough = 0
    loop.waiting = 0
    settled = loop.settled
    loop.settled = NULL
    pthread_mutex_unlock(&loop.lock)
    return settled


cdef void give_back(closed_loop* loop, request* settled) noexcept nogil:
    cdef request* following
    while settled != NULL:
        following = settled.completed
        if settled.error.code != OK or settled.reply_size == 0:
            loop.failed += 1
        else:
            loop.reply_bytes += <int64_t> settled.reply_size
        close_request(loop.core, settled)
        loop.outstanding -= 1
        settled = following
