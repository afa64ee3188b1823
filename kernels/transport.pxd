"""The Python object around one server_core."""

from kernels.server_call cimport Call
from kernels.transport_state cimport call, server_core


cdef class Transport:
    cdef server_core core
    cdef bint _started
    cdef bint _closed
    cdef list _engines         # bound ones are kept alive
    cdef list _files           # of Unix sockets, removed at the end
    cdef int _process          # that made the server: a fork has none of its threads

    cdef int command_all(self, int kind) except -1
    cdef tuple describe_event(self, int kind, call* subject, bytes data)
    cdef Call open_call(self, call* subject)
