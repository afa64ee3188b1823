"""Drives nghttp2 for one connection: its frames become calls and messages, and what calls send becomes frames.

Nothing here reads or writes a socket. Callbacks run inside receive_frames and collect_frames, on the connection's I/O
thread; none of them frees a connection.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdio cimport snprintf

from kernels.call cimport (
    RECEIVED, RECEIVE_FULL, RECEIVE_NO_MEMORY, RECEIVE_TOO_LARGE, RECEIVE_TOO_MANY, discard_message, drop_call,
    grant_message, receive_bytes, take_call,
)
from kernels.headers cimport (
    GRPC_INTERNAL, GRPC_OK, GRPC_PERMISSION_DENIED, GRPC_RESOURCE_EXHAUSTED, check_headers, read_header,
)
from kernels.nghttp2 cimport *
from kernels.output cimport add_output, drop_outgoing
from kernels.reply cimport (
    FRAME_PIECES, FRAME_ROOM_BYTES, FULL_TEXT, fail_call, mark_dirty, on_frame_not_send, on_frame_send, on_send_data,
)
from kernels.sync cimport counter_raise, int_store
from kernels.tls_peer cimport PEER_ALLOWED
from kernels.transport_state cimport (
    OUTPUT_BYTES, OUTPUT_PIECES, call, connection, io_thread, server_core, transport_limits,
)

cdef enum:
    STREAM_WINDOW_BYTES = 4 * 1024 * 1024
    CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
    FRAME_BYTES = 16384                # the most that the peer may put into a frame: what HTTP/2 begins with
    MAX_ACKNOWLEDGEMENTS = 1000        # waiting to be sent; beyond, the peer floods
    MAX_SETTINGS_ENTRIES = 32
    MAX_CONTINUATIONS = 8
    UNFOLDED_TIMES = 4                 # the limit of header bytes: what is read to be answered with a status
    MAX_REPLY_HEADER_BYTES = 256 * 1024
    ERROR_TEXT_BYTES = 128


cdef int prepare_http2(server_core* server) noexcept nogil:
    """Make what all sessions of a server share. 0, or -1 without memory."""
    cdef nghttp2_session_callbacks* callbacks
    cdef uint32_t resets = <uint32_t> server.limits.max_resets
    if nghttp2_session_callbacks_new(&server.callbacks) != 0 or nghttp2_option_new(&server.options) != 0:
        return -1
    callbacks = server.callbacks
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame_recv)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk_recv)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data)
    nghttp2_option_set_no_auto_window_update(server.options, 1)
    nghttp2_option_set_no_closed_streams(server.options, 1)
    nghttp2_option_set_max_outbound_ack(server.options, MAX_ACKNOWLEDGEMENTS)
    nghttp2_option_set_max_settings(server.options, MAX_SETTINGS_ENTRIES)
    nghttp2_option_set_max_send_header_block_length(server.options, MAX_REPLY_HEADER_BYTES)
    nghttp2_option_set_stream_reset_rate_limit(server.options, RESET_BURST_S * resets, resets)
    nghttp2_option_set_max_continuations(server.options, MAX_CONTINUATIONS)
    return 0


cdef int open_session(connection* made) noexcept nogil:
    """Make a connection's session and have it say its settings. 0, or -1 without memory."""
    cdef server_core* server = made.thread.server
    cdef nghttp2_settings_entry[4] settings
    settings[0] = nghttp2_settings_entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server.limits.max_streams)
    settings[1] = nghttp2_settings_entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES)
    settings[2] = nghttp2_settings_entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, <uint32_t> server.limits.max_header_bytes)
    # Priorities of RFC 7540 cost a tree and are open to abuse; clients of gRPC send none.
    settings[3] = nghttp2_settings_entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1)
    if (nghttp2_session_server_new2(&made.session, server.callbacks, made, server.options) != 0
            or nghttp2_submit_settings(made.session, NGHTTP2_FLAG_NONE, settings, 4) != 0
            or nghttp2_session_set_local_window_size(made.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES) != 0):
        return -1
    mark_dirty(made)
    return 0


cdef int receive_frames(connection* receiver, const uint8_t* data, size_t size) noexcept nogil:
    """Take bytes from the peer. 0, or -1 when the connection is beyond repair: what can be said is yet to be sent."""
    cdef ssize_t taken = nghttp2_session_mem_recv(receiver.session, data, size)
    # Whatever came may need an answer: window updates, acknowledgements.
    mark_dirty(receiver)
    if is_flooding(receiver):
        nghttp2_session_terminate_session(receiver.session, NGHTTP2_ENHANCE_YOUR_CALM)
    return 0 if taken == <ssize_t> size else -1


cdef bint is_flooding(const connection* receiver) noexcept nogil:
    """Whether the peer has sent too many frames that bring nothing, or had too many calls reset, by itself or by us."""
    cdef const transport_limits* limits = &receiver.thread.server.limits
    return (receiver.idle_frames >= limits.max_idle_frames
            or receiver.resets > <int64_t> RESET_BURST_S * limits.max_resets)


cdef int collect_frames(connection* sender) noexcept nogil:
    """Append frames to the thread's output while there are any and room is left. 0, or -1 when the session broke."""
    cdef io_thread* thread = sender.thread
    cdef const uint8_t* data
    cdef ssize_t size
    while thread.output_size + FRAME_ROOM_BYTES <= OUTPUT_BYTES and thread.n_pieces + FRAME_PIECES <= OUTPUT_PIECES:
        size = nghttp2_session_mem_send(sender.session, &data)
        if size <= 0:
            return 0 if size == 0 else -1
        add_output(thread, data, <size_t> size)
    return 0


# ---- what the peer sends


cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil:
    cdef connection* home = <connection*> user_data
    home.receiving = <call*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        home.receiving = take_call(home.thread)
        if home.receiving == NULL:
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        begin_call(home, frame.hd.stream_id)
    # Headers that are ignored do not come here: of these, in contrast, the end is always heard.
    home.headers_ns = home.thread.now_ns
    return 0


cdef void begin_call(connection* home, int32_t stream_id) noexcept nogil:
    """Make the call that is being received the connection's own."""
    cdef call* opened = home.receiving
    opened.home = home
    opened.stream_id = stream_id
    opened.target = &home.thread.server.fallback
    opened.accepted = 1
    opened.last_byte_ns = home.thread.now_ns
    nghttp2_session_set_stream_user_data(home.session, stream_id, opened)
    opened.next_open = home.calls
    if home.calls != NULL:
        home.calls.previous_open = opened
    home.calls = opened
    home.n_calls += 1
    counter_raise(&home.thread.calls_begun, 1)


cdef int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t namelen,
                   const uint8_t* value, size_t valuelen, uint8_t flags, void* user_data) noexcept nogil:
    cdef call* receiver = (<connection*> user_data).receiving
    if receiver == NULL:
        return 0
    # A byte of a block can stand for 4 KiB: what is far beyond the limit is not even looked at, and its stream reset.
    if receiver.header_bytes > UNFOLDED_TIMES * receiver.thread.server.limits.max_header_bytes:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    read_header(receiver, name, namelen, value, valuelen)
    return 0


cdef int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd* hd, void* user_data) noexcept nogil:
    """Count the frames that bring nothing, those among them that nghttp2 ignores; refuse one that is too large."""
    cdef connection* home = <connection*> user_data
    if hd.type in (NGHTTP2_PING, NGHTTP2_SETTINGS, NGHTTP2_PRIORITY, NGHTTP2_WINDOW_UPDATE):
        home.idle_frames += 1
    elif hd.type == NGHTTP2_CONTINUATION and hd.length > FRAME_BYTES:
        # Of all kinds the only one whose length nghttp2 does not look at.
        nghttp2_session_terminate_session(session, NGHTTP2_FRAME_SIZE_ERROR)
    return 0


cdef int on_frame_recv(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil:
    cdef connection* home = <connection*> user_data
    cdef call* receiver
    if frame.hd.type == NGHTTP2_DATA:
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            receiver = <call*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
            if receiver != NULL:
                close_input(receiver)
        elif frame.hd.length == frame.data.padlen:
            home.idle_frames += 1
        return 0
    if frame.hd.type == NGHTTP2_HEADERS:
        home.headers_ns = 0
        home.last_call_ns = home.thread.now_ns
        receiver = <call*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if receiver == NULL:
            return 0
        if not receiver.is_open:
            open_call(receiver)
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            close_input(receiver)
        return 0
    if frame.hd.type == NGHTTP2_RST_STREAM:
        return 0  # has a limit of its own, in nghttp2
    if frame.hd.type == NGHTTP2_SETTINGS:
        home.is_greeted = True
    elif frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        home.pinged_ns = 0
    return 0


cdef int on_invalid_frame_recv(nghttp2_session* session, const nghttp2_frame* frame, int error,
                               void* user_data) noexcept nogil:
    """Count what nghttp2 answers with a reset: a stream too many is none that could be counted when it closes."""
    (<connection*> user_data).resets += 1
    return 0


cdef int on_data_chunk_recv(nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t len,
                            void* user_data) noexcept nogil:
    cdef call* receiver = <call*> nghttp2_session_get_stream_user_data(session, stream_id)
    cdef size_t taken
    cdef int outcome
    nghttp2_session_consume_connection(session, len)
    if receiver == NULL or receiver.has_status:
        nghttp2_session_consume_stream(session, stream_id, len)
        return 0
    receiver.last_byte_ns = receiver.thread.now_ns
    outcome = receive_bytes(receiver, data, len, &taken)
    # Bytes behind a message that is not granted stay in the stream's window, which stops the peer when it is full.
    nghttp2_session_consume_stream(session, stream_id, taken)
    check_received(receiver, outcome)
    return 0


cdef void check_received(call* receiver, int outcome) noexcept nogil:
    """Answer a call whose message cannot be taken."""
    cdef char[ERROR_TEXT_BYTES] text
    if outcome == RECEIVED:
        return
    discard_message(receiver)
    if outcome == RECEIVE_TOO_LARGE:
        snprintf(text, ERROR_TEXT_BYTES, "the message is larger than the %zu bytes that this server takes",
                 receiver.thread.server.limits.max_message_bytes)
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, text)
    elif outcome == RECEIVE_FULL:
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, FULL_TEXT)
    elif outcome == RECEIVE_NO_MEMORY:
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, b"no memory for the message")
    elif outcome == RECEIVE_TOO_MANY:
        fail_call(receiver, GRPC_INTERNAL, b"more than one message for a method that takes one")
    else:
        fail_call(receiver, GRPC_INTERNAL, b"the message is not framed or compressed as its headers say")


cdef void accept_message(call* receiver) noexcept nogil:
    """Let a counting method have one more message."""
    cdef size_t consumed
    cdef int outcome
    if receiver.home == NULL or receiver.has_status:
        return
    outcome = grant_message(receiver, &consumed)
    if receiver.home == NULL:
        return
    if consumed > 0:
        nghttp2_session_consume_stream(receiver.home.session, receiver.stream_id, consumed)
        mark_dirty(receiver.home)
    check_received(receiver, outcome)
    if receiver.half_closed:
        close_input(receiver)


cdef void open_call(call* opened) noexcept nogil:
    """Begin a call whose headers are complete, or answer it for what they lack."""
    cdef nghttp2_nv[1] fields
    cdef int code
    cdef const char* text
    opened.is_open = True
    if not opened.is_post or not opened.is_grpc:
        # Not gRPC at all: answered in HTTP's own terms.
        fields[0] = nghttp2_nv(<uint8_t*> b":status", <uint8_t*> (b"415" if opened.is_post else b"405"), 7, 3, 0)
        opened.headers_sent = opened.has_status = opened.status_sent = True
        nghttp2_submit_response(opened.home.session, opened.stream_id, fields, 1, NULL)
        return
    code = check_headers(opened, &text)
    if code != GRPC_OK:
        fail_call(opened, code, text)
        return
    if opened.home.verdict != PEER_ALLOWED:
        fail_call(opened, GRPC_PERMISSION_DENIED, opened.home.trust.refusal)
        return
    opened.is_given = True
    opened.target.open(opened)


cdef void close_input(call* receiver) noexcept nogil:
    receiver.half_closed = True
    if not receiver.has_status and receiver.prefix_size > 0 and not receiver.has_message:
        discard_message(receiver)
        fail_call(receiver, GRPC_INTERNAL, b"the call ended in the middle of a message")
    finish_input(receiver)


cdef void finish_input(call* receiver) noexcept nogil:
    """Tell the method that nothing more comes, once it has all that came."""
    if (receiver.half_closed and not receiver.input_finished and not receiver.has_status
            and receiver.is_given and not (receiver.is_counting and receiver.has_message)):
        receiver.input_finished = True
        receiver.target.finish_input(receiver)


cdef int on_stream_close(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                         void* user_data) noexcept nogil:
    cdef connection* home = <connection*> user_data
    cdef call* ended = <call*> nghttp2_session_get_stream_user_data(session, stream_id)
    if ended == NULL:
        return 0
    if home.receiving == ended:
        home.receiving = NULL
        home.headers_ns = 0
    if error_code != <uint32_t> NGHTTP2_NO_ERROR:
        home.resets += 1
    end_call(ended, ended.status_sent and error_code == <uint32_t> NGHTTP2_NO_ERROR)
    return 0


cdef void end_call(call* ended, bint sent) noexcept nogil:
    """Take a call off its connection; what still refers to it finds it without one."""
    cdef connection* home = ended.home
    if ended.previous_open == NULL:
        home.calls = ended.next_open
    else:
        ended.previous_open.next_open = ended.next_open
    if ended.next_open != NULL:
        ended.next_open.previous_open = ended.previous_open
    home.n_calls -= 1
    counter_raise(&home.thread.calls_ended, 1)
    home.last_call_ns = ended.thread.now_ns
    discard_message(ended)
    drop_outgoing(ended)
    # What the engine still has of it is given back when there is no connection to give it back to.
    home.buffered -= ended.charged
    ended.home = NULL
    int_store(&ended.is_over, True)
    if ended.is_given:
        ended.target.end(ended, sent)
    drop_call(ended)


cdef void end_calls(connection* closed) noexcept nogil:
    """End every call of a connection that is gone."""
    while closed.calls != NULL:
        end_call(closed.calls, False)


# ---- the end of a connection


cdef void warn_leaving(connection* warned) noexcept nogil:
    """First of two: the peer is told to go, and what it has sent meanwhile is still served."""
    if warned.is_warned or warned.session == NULL:
        return
    warned.is_warned = True
    warned.warned_ns = warned.pinged_ns = warned.thread.now_ns
    nghttp2_submit_shutdown_notice(warned.session)
    # Its answer says that whatever was sent before the notice was heard has arrived.
    nghttp2_submit_ping(warned.session, NGHTTP2_FLAG_NONE, NULL)
    mark_dirty(warned)


cdef void say_leaving(connection* left) noexcept nogil:
    """Second of two: calls beyond those that came are refused."""
    if left.is_leaving or left.session == NULL:
        return
    left.is_leaving = True
    nghttp2_submit_goaway(left.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(left.session),
                          NGHTTP2_NO_ERROR, NULL, 0)
    mark_dirty(left)
