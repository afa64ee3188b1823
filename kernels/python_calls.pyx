"""The native side of calls that Python serves: their events on the way up, Python's commands on the way down.

An I/O thread never waits for the GIL: it appends to a queue that a thread of Python's takes from. Commands come back
through the I/O thread's own list, in the order in which they were given.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from kernels.call cimport drop_call, release_message, take_message
from kernels.http2 cimport accept_message
from kernels.headers cimport GRPC_RESOURCE_EXHAUSTED
from kernels.output cimport write_prefix
from kernels.reply cimport fail_call, reset_call, send_headers, send_outgoing, send_status
from kernels.sync cimport (
    CLOCK_MONOTONIC, counter_add, int_add, int_exchange, int_load, monotonic_ns, pthread_cond_broadcast,
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_timedwait, pthread_condattr_destroy,
    pthread_condattr_init, pthread_condattr_setclock, pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, timespec,
)
from kernels.tls_peer cimport share_peer
from kernels.transport_state cimport (
    ADDRESS_BYTES, EVENT_ADMIT, EVENT_CALL, EVENT_CLOSED, EVENT_FAILURE, EVENT_HALF_CLOSE, EVENT_MESSAGE, EVENT_STOPPED,
    EVENT_WRITABLE, FRAME_PREFIX_BYTES, GRANT_MESSAGE, RESET_CALL, SEND_HEADERS, SEND_MESSAGE, SEND_STATUS, call, command, event,
    event_queue, io_thread, method, outgoing, server_core,
)

cdef enum:
    MAX_UNHEARD_CALLS = 4096         # that wait for Python; what they hold is not counted elsewhere
    FAILURES_PER_S = 10              # reported; a client that makes a model fail must not fill the disk


# ---- the queue of events


cdef int open_events(event_queue* made) noexcept nogil:
    """Make an empty queue. 0, or -1."""
    cdef pthread_condattr_t monotonic
    pthread_condattr_init(&monotonic)
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC)
    pthread_mutex_init(&made.lock, NULL)
    pthread_cond_init(&made.filled, &monotonic)
    pthread_condattr_destroy(&monotonic)
    made.first = made.last = NULL
    made.n_calls = 0
    made.is_closed = False
    return 0


cdef void close_events(event_queue* used) noexcept nogil:
    """Have take_events return at once from now on."""
    pthread_mutex_lock(&used.lock)
    used.is_closed = True
    pthread_cond_broadcast(&used.filled)
    pthread_mutex_unlock(&used.lock)


cdef void free_events(event_queue* used) noexcept nogil:
    """Free a queue that is closed and empty."""
    pthread_mutex_destroy(&used.lock)
    pthread_cond_destroy(&used.filled)


cdef event* take_events(event_queue* source, double timeout_s) noexcept nogil:
    """Wait for events; return all there are, the oldest first, or NULL when the time has passed."""
    cdef int64_t until_ns = monotonic_ns() + <int64_t> (timeout_s * 1e9)
    cdef timespec until
    cdef event* taken
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&source.lock)
    while source.first == NULL and not source.is_closed and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&source.filled, &source.lock, &until)
    taken = source.first
    source.first = source.last = NULL
    source.n_calls = 0
    pthread_mutex_unlock(&source.lock)
    return taken


cdef void free_event(event* used) noexcept nogil:
    """Free an event that was taken, with its data."""
    free(used.data)
    free(used)


cdef int push_event(server_core* server, int kind, call* subject, uint8_t* data, size_t size) noexcept nogil:
    """Append an event; it owns `data`. 0, or -1 without memory, and then the data is the caller's still.

    One call too many is refused too: Python hears of far fewer in a second than an I/O thread can read.
    """
    cdef event_queue* target = &server.events
    cdef event* made = <event*> calloc(1, sizeof(event))
    if made == NULL:
        return -1
    made.kind = kind
    made.subject = subject
    made.data = data
    made.size = size
    pthread_mutex_lock(&target.lock)
    if kind in (EVENT_CALL, EVENT_ADMIT):
        if target.n_calls == MAX_UNHEARD_CALLS:
            pthread_mutex_unlock(&target.lock)
            free(made)
            return -1
        target.n_calls += 1
    if target.last == NULL:
        target.first = made
    else:
        target.last.next = made
    target.last = made
    pthread_cond_signal(&target.filled)
    pthread_mutex_unlock(&target.lock)
    return 0


cdef void report_stopped(io_thread* thread) noexcept nogil:
    """Say, once, that every thread drains and no connection is left."""
    cdef server_core* server = thread.server
    if (int_load(&server.n_draining) == server.n_threads and int_load(&server.n_connections) == 0
            and not int_exchange(&server.is_stopped, 1)):
        push_event(server, EVENT_STOPPED, NULL, NULL, 0)


cdef void report_failure(call* failed, const char* text) noexcept nogil:
    """Have the server's own errors logged, within a limit: the request's id, a NUL, the reason."""
    cdef server_core* server = failed.thread.server
    cdef size_t size = failed.request_id_size + 1 + strlen(text)
    cdef uint8_t* data
    if not is_reportable(server, failed.thread.now_ns):
        return
    data = <uint8_t*> malloc(size)
    if data == NULL:
        return
    memcpy(data, failed.request_id, failed.request_id_size)
    data[failed.request_id_size] = 0
    memcpy(data + failed.request_id_size + 1, text, size - failed.request_id_size - 1)
    if push_event(server, EVENT_FAILURE, NULL, data, size) != 0:
        free(data)


cdef bint is_reportable(server_core* server, int64_t now_ns) noexcept nogil:
    """At most so many a second, of all threads together."""
    cdef bint allowed
    pthread_mutex_lock(&server.events.lock)
    if now_ns - server.failure_window_ns >= 1000000000:
        server.failure_window_ns = now_ns
        server.failures = 0
    server.failures += 1
    allowed = server.failures <= FAILURES_PER_S
    pthread_mutex_unlock(&server.events.lock)
    return allowed


# ---- what happens to a call


cdef void bind_python(method* made) noexcept nogil:
    """Have a method's calls go to Python; for all that are not bound to the engine."""
    made.keeps_metadata = True
    made.open = open_python
    made.take_message = take_python
    made.finish_input = finish_python
    made.end = end_python


cdef void open_python(call* opened) noexcept nogil:
    opened.is_counting = True
    opened.granted = 0
    memcpy(opened.peer, opened.home.address, ADDRESS_BYTES)
    opened.identity = share_peer(opened.home.peer)
    int_add(&opened.references, 1)  # the Python object's
    opened.is_python = True
    if push_event(opened.thread.server, EVENT_CALL, opened, NULL, 0) != 0:
        opened.is_python = False
        drop_call(opened)
        fail_call(opened, GRPC_RESOURCE_EXHAUSTED, b"too many calls wait to be heard of")


cdef void take_python(call* receiver) noexcept nogil:
    cdef size_t size, capacity
    cdef uint8_t* message = take_message(receiver, &size, &capacity)
    cdef uint8_t* data = <uint8_t*> malloc(max(size, <size_t> 1))
    receiver.awaits_message = False
    if data != NULL:
        memcpy(data, message, size)
    release_message(receiver, message, capacity)
    if data == NULL or push_event(receiver.thread.server, EVENT_MESSAGE, receiver, data, size) != 0:
        free(data)
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, b"no memory for the message")


cdef void finish_python(call* receiver) noexcept nogil:
    push_event(receiver.thread.server, EVENT_HALF_CLOSE, receiver, NULL, 0)


cdef void end_python(call* ended, bint sent) noexcept nogil:
    if ended.is_python:
        push_event(ended.thread.server, EVENT_CLOSED, ended, NULL, sent)


# ---- what Python asks for


cdef void carry_out(command* given) noexcept nogil:
    """Do what Python asked for, unless the call is over; frees the command. On the call's I/O thread."""
    cdef call* subject = given.subject
    if given.kind == SEND_HEADERS:
        subject.reply_encoding = given.number
        send_headers(subject, &given.metadata)
    elif given.kind == SEND_MESSAGE:
        send_data(subject, given)
    elif given.kind == SEND_STATUS:
        if not subject.has_status:
            free(subject.trailing.data)
            subject.trailing = given.metadata
            given.metadata.data = NULL
        send_status(subject, given.number, <const char*> given.data, given.size)
    elif given.kind == GRANT_MESSAGE:
        subject.awaits_message = given.number
        accept_message(subject)
    elif given.kind == RESET_CALL:
        reset_call(subject)
    free(given.metadata.data)
    free(given.data)
    free(given)
    drop_call(subject)


cdef void send_data(call* subject, command* given) noexcept nogil:
    """Queue a message of Python's, whose bytes the outgoing now owns."""
    cdef outgoing* made = <outgoing*> calloc(1, sizeof(outgoing))
    if made == NULL:
        counter_add(&subject.queued, -<int64_t> given.size)
        reset_call(subject)
        return
    if not subject.headers_sent:
        subject.reply_encoding = given.number >> 1
    write_prefix(made.prefix, given.number & 1, given.size)
    made.prefix_size = FRAME_PREFIX_BYTES
    made.data = given.data
    made.size = given.size
    made.owner = subject
    int_add(&subject.references, 1)  # given back by release_data, perhaps after the stream's end
    made.release = release_data
    given.data = NULL
    send_outgoing(subject, made)


cdef void release_data(outgoing* sent) noexcept nogil:
    """Free a message that has left, and tell Python when it may go on."""
    cdef call* sender = <call*> sent.owner
    cdef int64_t left = counter_add(&sender.queued, -<int64_t> sent.size)
    free(<void*> sent.data)
    free(sent)
    # After the end there is nobody to be told: EVENT_CLOSED is the last of a call's events.
    if left < LOW_MARK_BYTES and not sender.is_over and int_exchange(&sender.was_high, 0):
        push_event(sender.thread.server, EVENT_WRITABLE, sender, NULL, 0)
    drop_call(sender)
