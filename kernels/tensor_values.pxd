"""ONNX Runtime's values of a session, over memory of the caller's or read where they lie."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.failure cimport failure
from kernels.ort cimport OrtValue
from kernels.session_core cimport session_core, tensor_data, tensor_spec

cdef int bind_tensor(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil
cdef int bind_on_gpu(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil
cdef int create_strings(session_core* core, const int64_t* shape, int32_t rank, OrtValue** value,
                        failure* error) noexcept nogil
cdef int64_t fill_strings(session_core* core, OrtValue* value, int64_t first, const uint8_t* content, size_t size,
                          failure* error) noexcept nogil
cdef int describe_value(session_core* core, OrtValue* value, tensor_data* out, failure* error) noexcept nogil
cdef int read_numbers(session_core* core, OrtValue* value, size_t element_size, tensor_data* out,
                      failure* error) noexcept nogil
cdef int read_strings(session_core* core, OrtValue* value, int64_t elements, uint8_t** buffer, size_t* capacity,
                      size_t** offsets, size_t* offsets_capacity, failure* error) noexcept nogil
cdef void release_values(session_core* core, OrtValue** values, int32_t count) noexcept nogil
