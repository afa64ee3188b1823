"""Whose token it is: issuer and subject of a verified token's claims, as a gateway hands them on."""

from kernels.codec cimport bytes_view

cdef struct token_subject:
    bytes_view issuer            # JSON's text between the quotes, in the caller's memory; data is NULL without one
    bytes_view subject

cdef size_t decode_base64url(bytes_view text, unsigned char* target) noexcept nogil
cdef token_subject find_subject(bytes_view claims) noexcept nogil
