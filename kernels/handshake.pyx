"""Proves who a connection's peer is: in a handshake, and again when trust has changed.

Either costs as much as many calls. So connections wait for it in a queue, of which a turn of the loop takes a little.
"""

from kernels.openssl cimport (
    ERR_clear_error, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_do_handshake, SSL_get_error, SSL_new,
    SSL_session_reused, SSL_set_accept_state, SSL_set_fd,
)
from kernels.sockets cimport EAGAIN, MSG_PEEK, errno, recv
from kernels.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from kernels.tls cimport release_context, share_context, tls_context
from kernels.tls_peer cimport FULL_HANDSHAKE, NEW_TRUST, RESUMPTION, judge_peer, read_peer
from kernels.transport_state cimport connection, io_thread, server_core


# ---- the queue


cdef void mark_unproven(connection* unproven) noexcept nogil:
    """Put a connection at the queue's end, unless it is in it."""
    cdef io_thread* thread = unproven.thread
    if unproven.is_unproven:
        return
    unproven.is_unproven = True
    unproven.next_unproven = NULL
    unproven.previous_unproven = thread.last_unproven
    if thread.last_unproven == NULL:
        thread.unproven = unproven
    else:
        thread.last_unproven.next_unproven = unproven
    thread.last_unproven = unproven


cdef connection* take_unproven(io_thread* thread) noexcept nogil:
    """Take the queue's first; it must have one."""
    cdef connection* first = thread.unproven
    forget_unproven(first)
    return first


cdef void forget_unproven(connection* unproven) noexcept nogil:
    """Take a connection out of the queue, if it is in it."""
    cdef io_thread* thread = unproven.thread
    if not unproven.is_unproven:
        return
    unproven.is_unproven = False
    if unproven.previous_unproven == NULL:
        thread.unproven = unproven.next_unproven
    else:
        unproven.previous_unproven.next_unproven = unproven.next_unproven
    if unproven.next_unproven == NULL:
        thread.last_unproven = unproven.previous_unproven
    else:
        unproven.next_unproven.previous_unproven = unproven.previous_unproven


# ---- proofs


cdef int shake_hands(connection* shaking) noexcept nogil:
    """Begin the handshake, or go on with it, as far as the peer lets it; returns an outcome."""
    cdef int outcome, reason
    if shaking.ssl == NULL:
        outcome = begin_tls(shaking)
        if outcome != SHAKEN:
            return outcome
    outcome = SSL_do_handshake(shaking.ssl)
    if outcome != 1:
        reason = SSL_get_error(shaking.ssl, outcome)
        ERR_clear_error()
        return WAITING if reason == SSL_ERROR_WANT_READ or reason == SSL_ERROR_WANT_WRITE else FAILED
    ERR_clear_error()
    shaking.is_handshaking = False
    shaking.peer = read_peer(shaking.ssl)
    if shaking.peer == NULL:
        return FAILED
    if follow_trust(shaking) or SSL_session_reused(shaking.ssl):
        shaking.verdict = judge_peer(shaking.trust, shaking.ssl, RESUMPTION)
    else:
        shaking.verdict = judge_peer(shaking.trust, shaking.ssl, FULL_HANDSHAKE)
    return SHAKEN


cdef int begin_tls(connection* shaking) noexcept nogil:
    """Take the trust of now, when the first byte has come: a silent peer costs none of OpenSSL's 40 KiB."""
    cdef char first
    cdef ssize_t size = recv(shaking.descriptor, &first, 1, MSG_PEEK)
    if size <= 0:
        return WAITING if size < 0 and errno == EAGAIN else FAILED
    follow_trust(shaking)
    shaking.ssl = SSL_new(shaking.trust.ssl)
    if shaking.ssl == NULL or SSL_set_fd(shaking.ssl, shaking.descriptor) != 1:
        ERR_clear_error()
        return FAILED
    SSL_set_accept_state(shaking.ssl)
    return SHAKEN


cdef void judge_again(connection* judged) noexcept nogil:
    """Judge the peer of an open connection by the trust of now, where that is another."""
    if follow_trust(judged):
        judged.verdict = judge_peer(judged.trust, judged.ssl, NEW_TRUST)


cdef bint follow_trust(connection* follower) noexcept nogil:
    """Have the connection hold the server's trust of now; True when it held another."""
    cdef server_core* server = follower.thread.server
    cdef tls_context* trust
    pthread_mutex_lock(&server.trust_lock)
    trust = share_context(server.trust)
    pthread_mutex_unlock(&server.trust_lock)
    if trust == follower.trust:
        release_context(trust)
        return False
    release_context(follower.trust)
    follower.trust = trust
    return True
