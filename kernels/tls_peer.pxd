"""Who is at the other end of a TLS connection, and whether it may be."""

from kernels.openssl cimport SSL, X509, stack_x509
from kernels.tls cimport tls_context

cdef enum verdict:
    PEER_ALLOWED = 0       # or nobody asked for a certificate
    PEER_NOT_ALLOWED = 1   # the certificate is good, and carries none of the allowed names
    PEER_NOT_TRUSTED = 2   # its authority is gone, it has expired or was revoked

cdef enum occasion:        # of a judgement
    FULL_HANDSHAKE = 0     # in which OpenSSL has checked the certificate by the same context
    RESUMPTION = 1         # the session brings a certificate that was not checked again
    NEW_TRUST = 2          # other authorities under an open connection; time alone ends none


cdef struct tls_peer:
    int references         # the connection and calls that Python serves; changed atomically
    X509* certificate      # a reference; NULL without one
    stack_x509* chain      # what was sent beside it; NULL without any
    const char* version    # of TLS; OpenSSL's own memory
    bint is_resumed


cdef int judge_peer(const tls_context* context, SSL* ssl, int when) noexcept nogil
cdef tls_peer* read_peer(SSL* ssl) noexcept nogil
cdef tls_peer* share_peer(tls_peer* peer) noexcept nogil
cdef void release_peer(tls_peer* peer) noexcept nogil
cdef dict describe_peer(const tls_peer* peer)
