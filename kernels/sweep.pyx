"""Looks over a thread's connections a few times a second: what has waited too long is asked, told or cut off."""

from libc.stdint cimport int64_t

from kernels.connection cimport close_connection
from kernels.headers cimport GRPC_DEADLINE_EXCEEDED, GRPC_UNAVAILABLE
from kernels.http2 cimport RESET_BURST_S, say_leaving, warn_leaving
from kernels.listener cimport watch_listeners
from kernels.nghttp2 cimport NGHTTP2_FLAG_NONE, nghttp2_session_get_stream_remote_window_size, nghttp2_submit_ping
from kernels.reply cimport fail_call, mark_dirty, reset_call
from kernels.sync cimport counter_load
from kernels.transport_state cimport call, connection, io_thread, transport_limits

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t kept) noexcept

cdef enum:
    NOTICE_NS = 1_000_000_000      # until a peer that does not answer a notice is told the second time
    SWEEPS_PER_S = 5
    BULKY_BYTES = 32 * 1024 * 1024     # buffered at a time: worth giving back to the system
    TRIM_AFTER_NS = 5_000_000_000      # without so much: under a load that comes again it would only be fetched again


cdef void sweep_connections(io_thread* thread) noexcept nogil:
    """Enforce every limit of time. On the I/O thread."""
    cdef connection* swept = thread.connections
    cdef connection* following
    if thread.refused_until_ns != 0 and thread.now_ns >= thread.refused_until_ns:
        watch_listeners(thread)
    give_memory_back(thread)
    while swept != NULL:
        following = swept.next
        if is_overdue(swept):
            close_connection(swept)
        else:
            tend_connection(swept)
            sweep_calls(swept)
        swept = following


cdef void give_memory_back(io_thread* thread) noexcept nogil:
    """Have malloc return what it keeps of large messages: small blocks between them would hold it for ever."""
    if counter_load(&thread.server.buffered) > BULKY_BYTES:
        thread.bulky_ns = thread.now_ns
    elif thread.bulky_ns != 0 and thread.now_ns - thread.bulky_ns > TRIM_AFTER_NS:
        thread.bulky_ns = 0
        malloc_trim(0)


cdef bint has_passed(const connection* swept, int64_t since_ns, int64_t span_ns) noexcept nogil:
    """Whether a span has passed since a moment; a moment or a span of 0 never passes."""
    return since_ns != 0 and span_ns != 0 and swept.thread.now_ns - since_ns > span_ns


cdef bint is_overdue(const connection* swept) noexcept nogil:
    """Whether the peer has kept us waiting too long for anything that the connection as a whole needs."""
    cdef const transport_limits* limits = &swept.thread.server.limits
    if swept.is_handshaking or not swept.is_greeted:
        return has_passed(swept, swept.accepted_ns, limits.handshake_ns)
    return (has_passed(swept, swept.headers_ns, limits.header_ns)
            or has_passed(swept, swept.stalled_ns, limits.send_ns)
            or (limits.keepalive_ns != 0 and swept.pinged_ns != 0
                and has_passed(swept, max(swept.pinged_ns, swept.last_read_ns), limits.keepalive_timeout_ns))
            or (limits.age_ns != 0
                and has_passed(swept, swept.warned_ns, limits.age_grace_ns)))


cdef void tend_connection(connection* swept) noexcept nogil:
    """Ping a silent peer, send an old or idle one away, and forget a part of what it did lately."""
    cdef const transport_limits* limits = &swept.thread.server.limits
    swept.idle_frames -= swept.idle_frames // SWEEPS_PER_S
    swept.resets -= swept.resets // (RESET_BURST_S * SWEEPS_PER_S)
    if swept.session == NULL:
        return
    if (has_passed(swept, swept.accepted_ns, limits.age_ns)
            or (swept.n_calls == 0 and has_passed(swept, swept.last_call_ns, limits.idle_ns))):
        warn_leaving(swept)
    if swept.is_warned and has_passed(swept, swept.warned_ns, NOTICE_NS):
        say_leaving(swept)
    if swept.stalled_ns != 0:
        # A socket is only said to be writable when a good part of it is free; a slow reader takes less at a time.
        mark_dirty(swept)
    if swept.pinged_ns == 0 and has_passed(swept, swept.last_read_ns, limits.keepalive_ns):
        swept.pinged_ns = swept.thread.now_ns
        nghttp2_submit_ping(swept.session, NGHTTP2_FLAG_NONE, NULL)
        mark_dirty(swept)


cdef void sweep_calls(connection* swept) noexcept nogil:
    """End the calls whose message does not come or whose reply is not taken."""
    cdef const transport_limits* limits = &swept.thread.server.limits
    cdef call* member = swept.calls
    cdef call* following
    while member != NULL:
        following = member.next_open
        if member.waiting > 0 and has_passed(swept, blocked_since(member), limits.send_ns):
            reset_call(member)
        elif (not member.half_closed and not member.has_status and member.is_open
                and (member.prefix_size > 0 or member.awaits_message)
                and has_passed(swept, member.last_byte_ns, limits.receive_ns)):
            fail_call(member, GRPC_DEADLINE_EXCEEDED, b"the message did not come in time")
        elif swept.thread.is_draining and is_idle_stream(member):
            # Nothing is under way on it, and its client would keep the server from stopping.
            fail_call(member, GRPC_UNAVAILABLE, b"the server is stopping")
        member = following


cdef bint is_idle_stream(const call* member) noexcept nogil:
    """Whether a bound stream has had nothing to do for a while."""
    return (member.is_counting and not member.is_python and member.exchanges == NULL
            and member.waiting == 0 and not member.half_closed
            and member.prefix_size == 0 and has_passed(member.home, member.last_byte_ns, NOTICE_NS))


cdef int64_t blocked_since(const call* sender) noexcept nogil:
    """Since when the peer takes nothing of a reply; one with an open window may just wait for others' turn."""
    if nghttp2_session_get_stream_remote_window_size(sender.home.session, sender.stream_id) <= 0:
        return sender.last_sent_ns
    return max(sender.last_sent_ns, sender.home.last_sent_ns)
