"""What a session's tensors are: read from the model, for the data plane and for Python."""

from kernels.session_core cimport session_core, tensor_spec

cdef list list_optional(session_core* core, object names)
cdef tuple describe_tensors(session_core* core, bint is_input, list optional, list kept)
cdef bint can_record(const session_core* core) noexcept nogil
cdef void count_inner_elements(tensor_spec* spec) noexcept nogil
