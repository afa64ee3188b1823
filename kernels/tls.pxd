"""The server's TLS context, and what a handshake says of a peer."""

from kernels.openssl cimport SSL, SSL_CTX, X509

cdef enum:
    PEER_ALLOWED = 0       # or nobody asked for a certificate
    PEER_NOT_ALLOWED = 1   # the certificate is good, and carries none of the allowed names
    PEER_NOT_TRUSTED = 2   # its authority is gone, it has expired or was revoked


cdef struct tls_context:
    SSL_CTX* ssl           # a reference of its own
    char** allowed         # URI names, NULL-terminated; NULL lets every client in
    char* refusal          # what a client that is not allowed hears
    bint asks              # for a client's certificate
    int references         # connections and whoever holds it; changed atomically


cdef tls_context* share_context(tls_context* context) noexcept nogil
cdef void release_context(tls_context* context) noexcept nogil
cdef int judge_peer(const tls_context* context, SSL* ssl) noexcept nogil
cdef tls_context* create_context(settings) except NULL
cdef dict describe_peer(X509* certificate, bint has_tls)
