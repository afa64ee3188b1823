"""ModelInfer and ModelStreamInfer on the engine: a message becomes an exchange, submitted at the end of the loop's turn.

An exchange holds its call from its submission until its reply has left, so that the message and the version header,
which lie in the call, outlive whatever the engine does with them, the stream's own end included.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen

from kernels.asked_permit cimport line_up, release_held
from kernels.call_keys cimport read_key
from kernels.caller_key cimport STREAM_KEY_TEXT
from kernels.call cimport (
    append_bytes, append_field, charge, drop_call, free_buffer, is_over_limit, release_message, take_message,
)
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, open_request, submit_request, withdraw_request
from kernels.headers cimport (
    GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED, GRPC_INTERNAL, GRPC_INVALID_ARGUMENT, GRPC_NOT_FOUND, GRPC_OK,
    GRPC_PERMISSION_DENIED, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE, GRPC_UNIMPLEMENTED,
)
from kernels.http2 cimport accept_message
from kernels.keyed_runs cimport submit_keyed
from kernels.mailbox cimport push_settled
from kernels.output cimport write_prefix
from kernels.python_calls cimport report_failure
from kernels.reply cimport FULL_TEXT, fail_call, send_outgoing, send_status
from kernels.request cimport request
from kernels.retry_info cimport append_retry
from kernels.status cimport (
    CANCELLED, EXHAUSTED, EXPIRED, FORBIDDEN, INTERNAL, INVALID, NOT_FOUND, OK, UNAVAILABLE, UNFORESEEN_TEXT,
    UNIMPLEMENTED,
)
from kernels.stream_reply cimport append_failure, write_stream_prefix
from kernels.sync cimport int_add
from kernels.transport_state cimport (
    FRAME_PREFIX_BYTES, OUTGOING_PREFIX_BYTES, call, exchange, method, outgoing,
)
from kernels.wire cimport is_utf8

cdef enum:
    STREAM_EXCHANGES = 64          # messages of one stream that wait or run at a time


cdef void bind_unary(method* made, engine_core* engine) noexcept nogil:
    """Have calls of the method answered by the engine: one request, one response."""
    made.context = engine
    made.keeps_identity = engine.keyed.max_bytes > 0
    made.open = open_unary
    made.take_message = take_unary
    made.finish_input = finish_unary
    made.end = end_unary


cdef void bind_stream(method* made, engine_core* engine) noexcept nogil:
    """The same for streams: each message is a request, and the responses come in the messages' order."""
    made.context = engine
    made.open = open_stream
    made.take_message = take_stream
    made.finish_input = finish_stream
    made.end = end_stream


# ---- one request, one response


cdef void open_unary(call* opened) noexcept nogil:
    opened.awaits_message = True


cdef void take_unary(call* receiver) noexcept nogil:
    """Leave the message where it is: it is submitted once the client has finished, and a second one is an error."""


cdef void finish_unary(call* receiver) noexcept nogil:
    cdef exchange* made = &receiver.only
    if not receiver.has_message:
        fail_call(receiver, GRPC_INTERNAL, b"the call ended without a message")
        return
    if receiver.n_keys > 0 and read_key(receiver) != 0:
        return
    prepare_exchange(made, receiver)


cdef void end_unary(call* ended, bint sent) noexcept nogil:
    withdraw_exchange(&ended.only)


# ---- streams


cdef void open_stream(call* opened) noexcept nogil:
    opened.is_counting = True
    opened.granted = STREAM_EXCHANGES


cdef void take_stream(call* receiver) noexcept nogil:
    cdef exchange* made = NULL
    if receiver.n_keys > 0:
        fail_call(receiver, GRPC_INVALID_ARGUMENT, STREAM_KEY_TEXT)
        return
    made = <exchange*> calloc(1, sizeof(exchange))
    if made == NULL:
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, b"no memory for the request")
        return
    if receiver.last_exchange == NULL:
        receiver.exchanges = made
    else:
        receiver.last_exchange.next = made
    receiver.last_exchange = made
    prepare_exchange(made, receiver)


cdef void finish_stream(call* receiver) noexcept nogil:
    if receiver.exchanges == NULL:
        send_status(receiver, GRPC_OK, b"", 0)


cdef void end_stream(call* ended, bint sent) noexcept nogil:
    """Withdraw what has not been answered; each exchange is freed when it comes back."""
    cdef exchange* member = ended.exchanges
    while member != NULL:
        withdraw_exchange(member)
        member = member.next
    free_finished(ended)


# ---- exchanges


cdef void prepare_exchange(exchange* made, call* receiver) noexcept nogil:
    """Take the call's message over and line the exchange up, once it is known what the caller may do."""
    made.home = receiver
    made.message = take_message(receiver, &made.message_size, &made.message_capacity)
    if made.message_capacity == 0 and receiver.is_counting:
        # The next message of the stream will lie in the same place.
        made.message = copy_message(receiver, made)
    int_add(&receiver.references, 1)
    line_up(made)


cdef uint8_t* copy_message(call* receiver, exchange* made) noexcept nogil:
    cdef uint8_t* copied = <uint8_t*> calloc(max(made.message_size, <size_t> 1), 1)
    if copied == NULL:
        return NULL
    memcpy(copied, made.message, made.message_size)
    made.message_capacity = max(made.message_size, <size_t> 1)
    charge(receiver, <int64_t> made.message_capacity)
    return copied


cdef void submit_exchange(exchange* submitted) noexcept nogil:
    """Give an exchange to the engine. It comes back through finish_exchange, on this thread."""
    cdef call* home = submitted.home
    cdef engine_core* engine = <engine_core*> home.target.context
    cdef request* asked = NULL
    home.thread.outstanding += 1
    if not submitted.unwanted and submitted.message != NULL:
        asked = open_request(engine)
    submitted.asked = asked
    if asked == NULL:
        push_settled(home.thread, submitted)
        return
    submitted.submitted = True
    asked.message = submitted.message
    asked.message_size = submitted.message_size
    asked.version_hint = bytes_view(&home.version[0], home.version_size)
    if home.thread.server.asks_permits:
        asked.admitted = &home.admitted
    asked.deadline_ns = home.deadline_ns
    asked.context = submitted
    asked.done = settle_exchange
    if home.n_keys == 0:
        submit_request(engine, asked)
    else:
        asked.key = home.caller_key
        submit_keyed(engine, asked)


cdef void settle_exchange(request* finished) noexcept nogil:
    """Called by the engine, from any thread."""
    cdef exchange* settled = <exchange*> finished.context
    push_settled(settled.home.thread, settled)


cdef void withdraw_exchange(exchange* unwanted) noexcept nogil:
    """Cancel what the stream's end has made useless; it still comes back."""
    unwanted.unwanted = True
    release_held(unwanted)
    if unwanted.submitted and not unwanted.finished:
        withdraw_request(<engine_core*> unwanted.home.target.context, unwanted.asked)


cdef void finish_exchange(exchange* finished) noexcept nogil:
    """Take an exchange back from the engine and send what came of it."""
    cdef call* home = finished.home
    home.thread.outstanding -= 1
    finished.finished = True
    if home.is_counting and home.home != NULL:
        keep_reply(finished)
    release_message(home, finished.message, finished.message_capacity)
    finished.message = NULL
    finished.message_capacity = 0
    if home.is_counting:
        finish_in_stream(finished)
    elif home.home == NULL:
        release_exchange(finished)
    else:
        answer_unary(finished)


cdef void answer_unary(exchange* finished) noexcept nogil:
    cdef call* home = finished.home
    cdef request* asked = finished.asked
    if asked == NULL:
        fail_call(home, GRPC_RESOURCE_EXHAUSTED, b"no memory for the request")
    elif asked.error.code != OK:
        if asked.retry_ns > 0:
            append_retry(&home.trailing, grpc_code(asked.error.code), asked.error.text, asked.retry_ns)
        fail_call(home, grpc_code(asked.error.code), client_text(home, asked))
    elif home.deadline_ns != 0 and home.deadline_ns <= home.thread.now_ns:
        # The sweep, which ends late calls, may not have come yet.
        fail_call(home, GRPC_DEADLINE_EXCEEDED, b"Deadline Exceeded while the request ran")
    elif asked.reply_size > home.thread.server.limits.max_message_bytes:
        fail_call(home, GRPC_RESOURCE_EXHAUSTED, b"the reply is larger than a message may be")
    else:
        write_prefix(finished.reply.prefix, False, asked.reply_size)
        finished.reply.prefix_size = FRAME_PREFIX_BYTES
        if asked.is_replayed:
            append_field(&home.trailing, <const uint8_t*> b"sluice-idempotent", 17, <const uint8_t*> b"replayed", 8)
        send_reply(finished, asked.reply, asked.reply_size)
        send_status(home, GRPC_OK, b"", 0)
        return
    release_exchange(finished)


cdef void send_reply(exchange* finished, const uint8_t* data, size_t size) noexcept nogil:
    """Queue a reply; the exchange is released when it has left, or with the stream."""
    finished.reply.data = data
    finished.reply.size = size
    finished.reply.owner = finished
    finished.reply.release = release_reply
    send_outgoing(finished.home, &finished.reply)


cdef void release_reply(outgoing* sent) noexcept nogil:
    """After a reply has left; of a client that takes no replies no more messages are read."""
    cdef exchange* used = <exchange*> sent.owner
    cdef call* home = used.home
    int_add(&home.references, 1)
    release_exchange(used)
    if home.is_counting:
        accept_message(home)
    drop_call(home)


cdef void release_exchange(exchange* used) noexcept nogil:
    """Give the request and the call back; a stream's exchange is freed."""
    cdef call* home = used.home
    cdef bint is_streamed = used != &home.only
    if used.asked != NULL:
        close_request(<engine_core*> home.target.context, used.asked)
        used.asked = NULL
    used.submitted = False
    if is_streamed:
        charge(home, -<int64_t> used.charged)
        free_buffer(&used.refusal)
        free(used)
    drop_call(home)


cdef void finish_in_stream(exchange* finished) noexcept nogil:
    """Send the responses whose turn it is: those at the front that are finished."""
    cdef call* home = finished.home
    cdef exchange* front
    int_add(&home.references, 1)
    if home.home == NULL:
        free_finished(home)
        drop_call(home)
        return
    while home.exchanges != NULL and home.exchanges.finished:
        front = take_front(home)
        answer_in_stream(front)
    if home.exchanges == NULL and home.input_finished:
        send_status(home, GRPC_OK, b"", 0)
    drop_call(home)


cdef exchange* take_front(call* home) noexcept nogil:
    cdef exchange* front = home.exchanges
    home.exchanges = front.next
    if home.exchanges == NULL:
        home.last_exchange = NULL
    return front


cdef void free_finished(call* ended) noexcept nogil:
    """After the stream's end: release what has come back; the others come yet."""
    cdef exchange** link = &ended.exchanges
    cdef exchange* member
    while link[0] != NULL:
        member = link[0]
        if member.finished:
            link[0] = member.next
            release_exchange(member)
        else:
            link = &member.next


cdef void answer_in_stream(exchange* front) noexcept nogil:
    """Send a response inside a ModelStreamInferResponse, without a copy, or what was written about its failure."""
    cdef uint8_t* prefix = front.reply.prefix
    charge(front.home, -<int64_t> front.charged)
    front.charged = 0
    if front.refusal.size > 0 and front.home.ends_on_failure:
        # What was answered before is sent first; what comes after is not sent any more.
        send_status(front.home, front.failure, <const char*> front.refusal.data, front.refusal.size)
        release_exchange(front)
        return
    if front.refusal.size > 0:
        write_prefix(prefix, False, front.refusal.size)
        front.reply.prefix_size = FRAME_PREFIX_BYTES
        send_reply(front, front.refusal.data, front.refusal.size)
        return
    if front.asked == NULL:
        fail_call(front.home, GRPC_RESOURCE_EXHAUSTED, b"no memory for the request")
        release_exchange(front)
        return
    front.reply.prefix_size = write_stream_prefix(prefix, front.asked.reply_size)
    send_reply(front, front.asked.reply, front.asked.reply_size)


cdef void keep_reply(exchange* finished) noexcept nogil:
    """Count a reply that may have to wait for those before it, or write what is to be said of it instead.

    While the message, in which the id lies, is still there.
    """
    cdef call* home = finished.home
    cdef request* asked = finished.asked
    cdef bytes_view unknown = bytes_view(NULL, 0)
    if asked == NULL:
        write_failure(finished, GRPC_RESOURCE_EXHAUSTED, b"no memory for the request", unknown)
    elif asked.error.code != OK:
        write_failure(finished, grpc_code(asked.error.code), client_text(home, asked),
                      asked.view.id if is_utf8(asked.view.id) else unknown)
    elif asked.reply_size + OUTGOING_PREFIX_BYTES > home.thread.server.limits.max_message_bytes:
        write_failure(finished, GRPC_RESOURCE_EXHAUSTED, b"the reply is larger than a message may be", asked.view.id)
    elif is_over_limit(home, asked.reply_size):
        write_failure(finished, GRPC_RESOURCE_EXHAUSTED, FULL_TEXT, asked.view.id)
    else:
        finished.charged = asked.reply_size
        charge(home, <int64_t> finished.charged)
    if finished.refusal.size > 0 and asked != NULL:
        # The reply's memory is not held for as long as others are waited for.
        close_request(<engine_core*> home.target.context, asked)
        finished.asked = NULL


cdef void write_failure(exchange* failed, int code, const char* reason, bytes_view id) noexcept nogil:
    """Write what is answered instead of a reply: a message, or the text of the status that ends the stream."""
    failed.failure = code
    if failed.home.ends_on_failure:
        append_bytes(&failed.refusal, reason, strlen(reason))
    else:
        append_failure(&failed.refusal, reason, id)


# ---- errors


cdef int grpc_code(int code) noexcept nogil:
    """The gRPC status of one of kernels.status."""
    if code == INVALID:
        return GRPC_INVALID_ARGUMENT
    if code == NOT_FOUND:
        return GRPC_NOT_FOUND
    if code == UNAVAILABLE:
        return GRPC_UNAVAILABLE
    if code == EXHAUSTED:
        return GRPC_RESOURCE_EXHAUSTED
    if code == EXPIRED:
        return GRPC_DEADLINE_EXCEEDED
    if code == CANCELLED:
        return GRPC_CANCELLED
    if code == UNIMPLEMENTED:
        return GRPC_UNIMPLEMENTED
    if code == FORBIDDEN:
        return GRPC_PERMISSION_DENIED
    return GRPC_INTERNAL


cdef const char* client_text(call* home, request* asked) noexcept nogil:
    """What the client hears of an error: of one that is the server's own only that there was one."""
    if asked.error.code != INTERNAL:
        return asked.error.text
    report_failure(home, asked.error.text)
    return UNFORESEEN_TEXT
