"""The Python object around one server_core, and the one around each call that Python serves."""

from kernels.transport_state cimport call, server_core, tls_context


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


cdef class Call:
    cdef call* subject         # holds a reference
    cdef Transport transport   # its threads outlive the call
    cdef int encoding          # of the reply, once it has begun
    cdef bint has_begun

    cdef int command(self, int kind, bytes data, bytes metadata, int number) except -1
