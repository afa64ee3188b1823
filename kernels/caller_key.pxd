"""Who sends a key: what the key of the book of answers is made from, so that nobody meets an answer of somebody else's."""

from libc.stdint cimport uint8_t, uint64_t

from kernels.codec cimport bytes_view
from kernels.openssl cimport EVP_MD

cdef extern from *:
    """
    #define KEY_TEXT "idempotency-key: expected one, of 1 to 255 visible ASCII characters"
    #define SWITCHED_OFF_TEXT "idempotency-key: this server keeps no answers; idempotency_bytes of its settings turns that on"
    #define STREAM_KEY_TEXT "idempotency-key: expected on ModelInfer; a stream has many requests"
    """
    const char* KEY_TEXT
    const char* SWITCHED_OFF_TEXT
    const char* STREAM_KEY_TEXT

cdef enum:
    MAX_KEY_BYTES = 255


cdef struct keyed_caller:
    bytes_view peer              # names in the certificate of who is connected; empty without one
    bytes_view forwarded         # x-forwarded-client-cert: whom that says it speaks for
    bytes_view token             # sluice-token: the verified claims of whom that carried, as base64url of JSON
    bytes_view key               # idempotency-key


cdef bint is_key(bytes_view key) noexcept nogil
cdef int digest_caller(const EVP_MD* digest, uint64_t seed, const keyed_caller* caller, uint8_t* made) noexcept nogil
