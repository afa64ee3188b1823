"""The Python object around each call that Python serves."""

from kernels.transport_state cimport call


cdef class Call:
    cdef call* subject         # holds a reference
    cdef object transport      # whose threads outlive the call
    cdef int encoding          # of the reply, once it has begun
    cdef bint has_begun
    cdef int age               # of decisions, when Python was asked what the caller may do

    cdef int command(self, int kind, bytes data, bytes metadata, int number) except -1


cdef object describe_call(call* subject)
cdef Call open_asking(object transport, call* subject)
cdef object describe_asking(call* subject)
