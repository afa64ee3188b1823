"""How callers see a model's tensors, where that is not as the model has them: reshaped, or with labels for classes."""

from libc.stdint cimport int32_t, int64_t

from kernels.session cimport Session, tensor_spec
from kernels.wire cimport bytes_view


cdef struct label_list:
    const bytes_view* labels  # by class; an empty one is none
    int64_t count


cdef struct interface_core:   # each array NULL where callers see what the model has
    tensor_spec* inputs       # as callers give them, in the model's order
    tensor_spec* outputs      # as callers get them
    tensor_spec* made         # the outputs as the model must make them for that
    label_list* labels        # one list per output


cdef class Labels:
    cdef label_list* lists    # one per output
    cdef int32_t count
    cdef list _kept           # the bytes objects behind the views


cdef class Interface:
    cdef interface_core core
    cdef readonly Session session   # whose tensors they are
    cdef Labels _labels

    cdef tensor_spec* reshape(self, const tensor_spec* specs, int32_t count, object shapes) except NULL


cdef void convert_shape(const tensor_spec* known, const int64_t* shape, const tensor_spec* wanted,
                        int64_t* converted) noexcept nogil
cdef int32_t convert_in_place(const tensor_spec* known, const tensor_spec* wanted, int64_t* shape) noexcept nogil
cdef bint fits(const tensor_spec* spec, const int64_t* shape, int32_t rank) noexcept nogil
