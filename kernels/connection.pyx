"""Moves bytes between a socket, TLS where there is any, and the HTTP/2 session; on the connection's I/O thread.

Sockets are edge-triggered: a connection is read until it has no more, or put on the thread's list of unread ones. What
a socket does not take at once is kept, and nothing more is collected for it until it has taken that.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from kernels.handshake cimport FAILED, WAITING, forget_unproven, judge_again, mark_unproven, shake_hands
from kernels.http2 cimport collect_frames, end_calls, open_session, receive_frames, warn_leaving
from kernels.nghttp2 cimport nghttp2_session_del, nghttp2_session_want_read, nghttp2_session_want_write
from kernels.openssl cimport (
    ERR_clear_error, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN, SSL_RECEIVED_SHUTDOWN,
    SSL_SENT_SHUTDOWN, SSL_free, SSL_get_error, SSL_read, SSL_set_shutdown, SSL_shutdown, SSL_write,
)
from kernels.output cimport finish_output
from kernels.permit cimport drop_permit
from kernels.sockets cimport *
from kernels.sync cimport counter_add, counter_raise, int_add
from kernels.tls cimport release_context
from kernels.tls_peer cimport PEER_NOT_TRUSTED, release_peer
from kernels.transport_state cimport CONNECTION, INPUT_BYTES, OUTPUT_BYTES, connection, io_thread

cdef enum:
    RECORD_BYTES = 16384       # the most that a TLS record holds
    READS_A_TURN = 4           # of one connection, so that a busy one leaves room for others
    CLOSED = 0
    BLOCKED = -1
    BROKEN = -2


# ---- birth and end


cdef connection* create_connection(int descriptor, bint has_tls) noexcept nogil:
    """Return a connection over an accepted socket, which it owns; NULL without memory."""
    cdef connection* made = <connection*> calloc(1, sizeof(connection))
    if made == NULL:
        return NULL
    made.kind = CONNECTION
    made.descriptor = descriptor
    made.is_writable = True
    made.is_handshaking = has_tls
    return made


cdef void discard_connection(connection* unused) noexcept nogil:
    """Free a connection that no thread has begun."""
    close(unused.descriptor)
    free(unused)


cdef int begin_connection(connection* made, io_thread* thread) noexcept nogil:
    """Make the connection the thread's own. 0, or -1 when it cannot be; it is then closed."""
    cdef epoll_event interest
    cdef int yes = 1
    made.thread = thread
    counter_raise(&thread.connections_begun, 1)
    made.accepted_ns = made.last_read_ns = made.last_call_ns = thread.now_ns
    made.next = thread.connections
    if thread.connections != NULL:
        thread.connections.previous = made
    thread.connections = made
    setsockopt(made.descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes))
    memset(&interest, 0, sizeof(interest))
    interest.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    interest.data.ptr = made
    if ((not made.is_handshaking and open_session(made) != 0)
            or epoll_ctl(thread.poller, EPOLL_CTL_ADD, made.descriptor, &interest) != 0):
        close_connection(made)
        return -1
    return 0


cdef void close_connection(connection* closed) noexcept nogil:
    """End every call and close the socket; the memory is freed at the end of the turn, by free_connection."""
    cdef io_thread* thread = closed.thread
    if closed.descriptor < 0:
        return
    end_calls(closed)
    drop_pending(closed)
    forget_unproven(closed)
    if closed.ssl != NULL and not closed.is_handshaking:
        if not closed.is_broken:
            SSL_shutdown(closed.ssl)
            ERR_clear_error()
        # A reset connection, too, leaves its session good.
        SSL_set_shutdown(closed.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    # Closing alone leaves it to the poller while a process that was forked a moment ago has the descriptor too.
    epoll_ctl(thread.poller, EPOLL_CTL_DEL, closed.descriptor, NULL)
    close(closed.descriptor)
    closed.descriptor = -1
    if closed.previous == NULL:
        thread.connections = closed.next
    else:
        closed.previous.next = closed.next
    if closed.next != NULL:
        closed.next.previous = closed.previous
    closed.next = thread.buried
    thread.buried = closed
    int_add(&thread.load, -1)
    int_add(&thread.server.n_connections, -1)


cdef void free_connection(connection* closed) noexcept nogil:
    """Free a closed connection that no list of its thread holds any more."""
    nghttp2_session_del(closed.session)
    SSL_free(closed.ssl)
    release_peer(closed.peer)
    release_context(closed.trust)
    drop_permit(closed.allowed)
    free(closed)


# ---- reading


cdef void read_connection(connection* reader) noexcept nogil:
    """Take what the socket has, up to a bound; close the connection when the peer has or when it breaks."""
    cdef io_thread* thread = reader.thread
    cdef ssize_t size
    cdef int turn
    if reader.is_handshaking:
        mark_unproven(reader)
        return
    for turn in range(READS_A_TURN):
        size = read_bytes(reader, thread.input, INPUT_BYTES)
        if size == BLOCKED:
            return
        if size == CLOSED or size == BROKEN:
            reader.is_broken = size == BROKEN
            close_connection(reader)
            return
        reader.last_read_ns = thread.now_ns
        counter_raise(&thread.received_bytes, size)
        if receive_frames(reader, thread.input, <size_t> size) != 0:
            # A last frame may say why; nothing more is read.
            write_connection(reader)
            close_connection(reader)
            return
        if size < INPUT_BYTES - RECORD_BYTES:
            return  # what comes from now on is another event
    mark_unread(reader)


cdef void mark_unread(connection* reader) noexcept nogil:
    if not reader.is_unread:
        reader.is_unread = True
        reader.next_unread = reader.thread.unread
        reader.thread.unread = reader


cdef ssize_t read_bytes(connection* reader, uint8_t* target, int size) noexcept nogil:
    """Return how many bytes came, or CLOSED, BLOCKED or BROKEN."""
    cdef ssize_t taken
    cdef int reason
    if reader.ssl == NULL:
        taken = recv(reader.descriptor, target, size, 0)
        while taken < 0 and errno == EINTR:
            taken = recv(reader.descriptor, target, size, 0)
        if taken >= 0:
            return taken
        return BLOCKED if errno == EAGAIN else BROKEN
    return read_records(reader, target, size)


cdef ssize_t read_records(connection* reader, uint8_t* target, int size) noexcept nogil:
    """Decrypt records until the target is nearly full or the socket is empty: HTTP/2 then sees them as one piece."""
    cdef int taken, reason, filled = 0
    while filled + RECORD_BYTES <= size:
        taken = SSL_read(reader.ssl, target + filled, size - filled)
        if taken > 0:
            filled += taken
            continue
        reason = SSL_get_error(reader.ssl, taken)
        if reason == SSL_ERROR_WANT_READ or reason == SSL_ERROR_WANT_WRITE:
            return filled if filled > 0 else BLOCKED
        ERR_clear_error()
        if filled == 0:
            return CLOSED if reason == SSL_ERROR_ZERO_RETURN else BROKEN
        # What came before the end is heard first; the next read finds the end again.
        mark_unread(reader)
        return filled
    return filled


cdef void prove_connection(connection* proven) noexcept nogil:
    """Go on with the handshake, and then read on; or judge again who was let in before."""
    cdef int outcome
    if proven.is_handshaking:
        outcome = shake_hands(proven)
        if outcome == WAITING:
            return
        proven.is_broken = outcome == FAILED
        if outcome == FAILED or proven.verdict == PEER_NOT_TRUSTED or open_session(proven) != 0:
            close_connection(proven)
            return
        if proven.thread.is_draining:
            warn_leaving(proven)
        read_connection(proven)
        return
    judge_again(proven)
    if proven.verdict == PEER_NOT_TRUSTED:
        close_connection(proven)


# ---- writing


cdef void write_connection(connection* writer) noexcept nogil:
    """Collect frames and give them to the socket until it takes no more or there are none; close what is done."""
    cdef io_thread* thread = writer.thread
    cdef size_t size
    cdef int failed
    if writer.descriptor < 0 or writer.session == NULL:
        return
    while write_pending(writer):
        failed = collect_frames(writer)
        size = thread.pieces_size
        if size > 0 and write_output(writer) != 0:
            failed = -1
        finish_output(thread)
        if failed != 0 or size == 0:
            writer.is_broken = writer.is_broken or (failed != 0 and writer.pending_size == 0)
            break
    if writer.is_broken or is_finished(writer):
        close_connection(writer)


cdef bint is_finished(const connection* writer) noexcept nogil:
    """Nothing is left to say, and nobody to listen to."""
    if writer.pending_size > 0:
        return False
    if writer.is_leaving and writer.n_calls == 0 and not nghttp2_session_want_write(writer.session):
        return True
    return not nghttp2_session_want_read(writer.session) and not nghttp2_session_want_write(writer.session)


cdef bint write_pending(connection* writer) noexcept nogil:
    """Write what the socket did not take before; True when nothing of it is left."""
    cdef ssize_t taken
    while writer.pending_sent < writer.pending_size:
        taken = write_bytes(writer, writer.pending + writer.pending_sent, writer.pending_size - writer.pending_sent)
        if taken <= 0:
            return False
        writer.pending_sent += taken
    if writer.pending_size > 0:
        drop_pending(writer)
    return True


cdef void drop_pending(connection* writer) noexcept nogil:
    """Forget what the socket has taken, or never will."""
    count_pending(writer, -<int64_t> writer.pending_size)
    free(writer.pending)
    writer.pending = NULL
    writer.pending_size = writer.pending_sent = 0


cdef void count_pending(connection* writer, int64_t size) noexcept nogil:
    """Count bytes that wait for the socket among those that are buffered."""
    writer.buffered += size
    counter_add(&writer.thread.server.buffered, size)


cdef int write_output(connection* writer) noexcept nogil:
    """Write the thread's pieces; keep what the socket does not take. 0 when it took all, else -1."""
    cdef io_thread* thread = writer.thread
    cdef ssize_t taken = 0
    cdef int first = 0
    while first < thread.n_pieces:
        taken = write_pieces(writer, first)
        if taken <= 0:
            break
        while first < thread.n_pieces and <size_t> taken >= thread.pieces[first].iov_len:
            taken -= <ssize_t> thread.pieces[first].iov_len
            first += 1
        if taken > 0:
            thread.pieces[first].iov_base = <uint8_t*> thread.pieces[first].iov_base + taken
            thread.pieces[first].iov_len -= <size_t> taken
    if first == thread.n_pieces:
        return 0
    if taken != BROKEN:
        keep_pieces(writer, first)
    return -1


cdef void keep_pieces(connection* writer, int first) noexcept nogil:
    """Copy what the socket did not take, since the pieces are about to be released."""
    cdef io_thread* thread = writer.thread
    cdef size_t size = 0
    cdef int index
    for index in range(first, thread.n_pieces):
        size += thread.pieces[index].iov_len
    writer.pending = <uint8_t*> malloc(size)
    if writer.pending == NULL:
        writer.is_broken = True
        return
    for index in range(first, thread.n_pieces):
        memcpy(writer.pending + writer.pending_size, thread.pieces[index].iov_base, thread.pieces[index].iov_len)
        writer.pending_size += thread.pieces[index].iov_len
    writer.pending_sent = 0
    count_pending(writer, <int64_t> writer.pending_size)


cdef ssize_t write_pieces(connection* writer, int first) noexcept nogil:
    """As write_bytes, for the pieces from `first` on: all at once, but over TLS one after another."""
    cdef io_thread* thread = writer.thread
    cdef iovec* pieces = &thread.pieces[first]
    cdef msghdr message
    cdef ssize_t taken
    if writer.ssl != NULL or first == thread.n_pieces - 1:
        return write_bytes(writer, <const uint8_t*> pieces.iov_base, pieces.iov_len)
    memset(&message, 0, sizeof(message))
    message.msg_iov = pieces
    message.msg_iovlen = thread.n_pieces - first
    taken = sendmsg(writer.descriptor, &message, MSG_NOSIGNAL)
    while taken < 0 and errno == EINTR:
        taken = sendmsg(writer.descriptor, &message, MSG_NOSIGNAL)
    if taken < 0:
        taken = BLOCKED if errno == EAGAIN else BROKEN
    note_written(writer, taken)
    return taken


cdef ssize_t write_bytes(connection* writer, const uint8_t* data, size_t size) noexcept nogil:
    """Return how many bytes the socket took, or BLOCKED or BROKEN, and note since when it takes nothing."""
    cdef ssize_t taken
    cdef int reason
    if writer.ssl == NULL:
        taken = send(writer.descriptor, data, size, MSG_NOSIGNAL)
        while taken < 0 and errno == EINTR:
            taken = send(writer.descriptor, data, size, MSG_NOSIGNAL)
        if taken < 0:
            taken = BLOCKED if errno == EAGAIN else BROKEN
    else:
        taken = SSL_write(writer.ssl, data, <int> min(size, <size_t> OUTPUT_BYTES))
        if taken <= 0:
            reason = SSL_get_error(writer.ssl, <int> taken)
            ERR_clear_error()
            taken = BLOCKED if reason == SSL_ERROR_WANT_WRITE or reason == SSL_ERROR_WANT_READ else BROKEN
    note_written(writer, taken)
    return taken


cdef void note_written(connection* writer, ssize_t taken) noexcept nogil:
    if taken > 0:
        writer.stalled_ns = 0
        counter_raise(&writer.thread.sent_bytes, taken)
    elif taken != BLOCKED:
        writer.is_broken = True
    elif writer.stalled_ns == 0:
        writer.stalled_ns = writer.thread.now_ns
