"""Outcome codes of the data plane, as plain ints; service/status.py maps them to gRPC's."""

cpdef enum:
    OK = 0
    INVALID = 1        # the request is wrong: a shape, a datatype, a name, a size
    NOT_FOUND = 2      # no such model or version
    UNAVAILABLE = 3    # the model is known and cannot serve now
    EXHAUSTED = 4      # a queue is full
    EXPIRED = 5        # the deadline passed before the run
    CANCELLED = 6      # the caller gave up
    INTERNAL = 7       # the server's own fault
    UNIMPLEMENTED = 8  # not offered
    FORBIDDEN = 9      # not to this caller
    ALREADY_EXISTS = 10  # the name is taken; of the control plane only


cdef const char* UNFORESEEN_TEXT   # what a caller hears of INTERNAL
