"""What a refused request is told: each call writes the text, sets the code, and returns -1."""

from libc.stdint cimport int32_t, int64_t

from kernels.codec cimport bytes_view, tensor_view
from kernels.request cimport request
from kernels.session cimport session_core, tensor_spec

cdef enum:
    SHOWN_NAME_BYTES = 100     # of a name that a client sent


cdef int refuse(request* target, int code) noexcept nogil
cdef int refuse_memory(request* target) noexcept nogil
cdef int refuse_tensor(request* target, const tensor_spec* spec, const char* complaint) noexcept nogil
cdef int refuse_output(request* target, const tensor_spec* spec, const char* complaint, int code) noexcept nogil
cdef int refuse_datatype(request* target, const tensor_spec* spec, const tensor_view* given) noexcept nogil
cdef int refuse_count(request* target, const tensor_spec* spec, int64_t expected, int64_t found) noexcept nogil
cdef int refuse_range(request* target, const tensor_spec* spec) noexcept nogil
cdef int refuse_shape(request* target, const tensor_spec* spec, const tensor_view* given,
                      const char* complaint) noexcept nogil
cdef int refuse_unknown_input(const session_core* core, request* target, int32_t index) noexcept nogil
cdef int refuse_missing_input(const session_core* core, request* target, int32_t place) noexcept nogil
cdef int refuse_unknown_output(const session_core* core, request* target, bytes_view name) noexcept nogil
