"""A call's reply: headers, messages and status, in nghttp2's terms, and the callbacks by which it fetches them."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport strlen

from kernels.call cimport is_over_limit
from kernels.headers cimport GRPC_RESOURCE_EXHAUSTED, REPLY_FIELDS, append_encoded, fill_reply, fill_status
from kernels.nghttp2 cimport *
from kernels.output cimport add_outgoing, add_output, drop_outgoing, queue_outgoing
from kernels.transport_state cimport OUTPUT_BYTES, OUTPUT_PIECES, byte_buffer, call, connection, io_thread, outgoing

cdef enum:
    FRAME_HEAD_BYTES = 9


cdef void mark_dirty(connection* changed) noexcept nogil:
    """Have the connection's frames collected and written at the end of the turn."""
    if not changed.is_dirty:
        changed.is_dirty = True
        changed.next_dirty = changed.thread.dirty
        changed.thread.dirty = changed


cdef void send_headers(call* sender, const byte_buffer* metadata) noexcept nogil:
    """Begin the reply; `metadata` (NULL for none) goes with it."""
    cdef nghttp2_data_provider provider
    cdef nghttp2_nv[REPLY_FIELDS] fields
    cdef size_t count
    if sender.home == NULL or sender.headers_sent:
        return
    sender.headers_sent = True
    count = fill_reply(sender, metadata, fields)
    provider.source.ptr = sender
    provider.read_callback = read_reply
    nghttp2_submit_response(sender.home.session, sender.stream_id, fields, count, &provider)
    mark_dirty(sender.home)


cdef void send_outgoing(call* sender, outgoing* made) noexcept nogil:
    """Send a message, behind those before it; one that comes after the status or is too much is released at once."""
    if sender.home == NULL or sender.has_status:
        made.release(made)
        return
    if is_over_limit(sender, made.size):
        fail_call(sender, GRPC_RESOURCE_EXHAUSTED, FULL_TEXT)
        made.release(made)
        return
    queue_outgoing(sender, made)
    if not sender.headers_sent:
        send_headers(sender, NULL)
    else:
        resume(sender)


cdef void resume(call* sender) noexcept nogil:
    if sender.is_deferred:
        sender.is_deferred = False
        nghttp2_session_resume_data(sender.home.session, sender.stream_id)
    mark_dirty(sender.home)


cdef void send_status(call* sender, int code, const char* text, size_t size) noexcept nogil:
    """End the reply once all messages before it are sent. The first status holds; trailing metadata is in the call."""
    cdef nghttp2_nv[REPLY_FIELDS] fields
    cdef size_t count
    if sender.home == NULL or sender.has_status:
        return
    sender.has_status = True
    sender.status = code
    sender.status_text.size = 0
    append_encoded(&sender.status_text, text, size)
    if sender.headers_sent:
        resume(sender)
    elif sender.waiting > 0:
        send_headers(sender, NULL)
    else:
        sender.headers_sent = sender.status_sent = True
        count = fill_status(sender, True, fields)
        nghttp2_submit_response(sender.home.session, sender.stream_id, fields, count, NULL)
        mark_dirty(sender.home)


cdef void fail_call(call* refused, int code, const char* text) noexcept nogil:
    """Answer a call with an error; messages that wait to be sent are dropped."""
    if refused.home == NULL or refused.has_status:
        return
    # The status first: nothing is read any more for those that are dropped.
    send_status(refused, code, text, strlen(text))
    drop_outgoing(refused)


cdef void reset_call(call* unwanted) noexcept nogil:
    """Break a call off."""
    if unwanted.home != NULL:
        nghttp2_submit_rst_stream(unwanted.home.session, NGHTTP2_FLAG_NONE, unwanted.stream_id, NGHTTP2_CANCEL)
        mark_dirty(unwanted.home)


cdef ssize_t read_reply(nghttp2_session* session, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
                        nghttp2_data_source* source, void* user_data) noexcept nogil:
    """Say how many bytes of a call's messages the next frame takes; on_send_data copies them."""
    cdef call* sender = <call*> source.ptr
    cdef size_t size = min(length, sender.waiting)
    if size == 0 and not sender.has_status:
        sender.is_deferred = True
        return NGHTTP2_ERR_DEFERRED
    data_flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
    if size == sender.waiting and sender.has_status:
        data_flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        submit_trailers(session, sender)
    return <ssize_t> size


cdef void submit_trailers(nghttp2_session* session, call* sender) noexcept nogil:
    cdef nghttp2_nv[REPLY_FIELDS] fields
    cdef size_t count = fill_status(sender, False, fields)
    sender.status_sent = True
    nghttp2_submit_trailer(session, sender.stream_id, fields, count)


cdef int on_send_data(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* framehd, size_t length,
                      nghttp2_data_source* source, void* user_data) noexcept nogil:
    cdef connection* home = <connection*> user_data
    cdef io_thread* thread = home.thread
    cdef call* sender = <call*> source.ptr
    if thread.output_size + FRAME_ROOM_BYTES > OUTPUT_BYTES or thread.n_pieces + FRAME_PIECES > OUTPUT_PIECES:
        return NGHTTP2_ERR_WOULDBLOCK
    if length > sender.waiting:
        # What the frame was to hold was dropped in the meantime: the call had failed.
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    add_output(thread, framehd, FRAME_HEAD_BYTES)
    add_outgoing(sender, length, home.ssl == NULL)
    home.last_sent_ns = thread.now_ns
    return 0


cdef int on_frame_send(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil:
    """After DATA or HEADERS idle frames count anew; a call that was answered early needs no more of its request."""
    cdef connection* home = <connection*> user_data
    cdef call* sender
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    home.idle_frames = 0
    if frame.hd.type == NGHTTP2_HEADERS and frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        sender = <call*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if sender != NULL and not sender.half_closed:
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef int on_frame_not_send(nghttp2_session* session, const nghttp2_frame* frame, int error,
                           void* user_data) noexcept nogil:
    """Break off a call whose headers or trailers cannot be sent, since they are too large: else it would never end."""
    if frame.hd.type == NGHTTP2_HEADERS:
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_INTERNAL_ERROR)
    return 0
