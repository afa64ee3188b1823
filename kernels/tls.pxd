"""The server's TLS context."""

from kernels.openssl cimport SSL_CTX


cdef struct tls_context:
    SSL_CTX* ssl           # a reference of its own
    char** allowed         # URI names, NULL-terminated; NULL lets every client in
    char* refusal          # what a client that is not allowed hears
    bint asks              # for a client's certificate
    bint demands           # one
    int references         # connections and whoever holds it; changed atomically


cdef tls_context* create_context(settings) except NULL
cdef tls_context* share_context(tls_context* context) noexcept nogil
cdef void retire_context(tls_context* context) noexcept nogil
cdef void release_context(tls_context* context) noexcept nogil
