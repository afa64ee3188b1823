"""An error as the data plane carries it: a code of kernels.status and a text; no exception, no allocation."""

cdef enum:
    FAILURE_TEXT_BYTES = 512


cdef struct failure:
    int code                       # kernels.status; OK (0) when nothing failed
    char text[FAILURE_TEXT_BYTES]  # UTF-8, NUL-terminated, may be cut in the middle of a character
