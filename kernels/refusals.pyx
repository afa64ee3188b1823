"""The texts of refusals: each names the tensor, the expected and the given, and stays short whatever a client sent."""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf

from kernels.codec cimport bytes_view, tensor_view
from kernels.datatype cimport datatype_name
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport request
from kernels.session cimport session_core, tensor_spec
from kernels.status cimport EXHAUSTED, INVALID

cdef enum:
    SHAPE_TEXT_BYTES = 160


cdef int refuse(request* target, int code) noexcept nogil:
    target.error.code = code
    return -1


cdef int refuse_memory(request* target) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "no memory for a request of %zu bytes", target.message_size)
    return refuse(target, EXHAUSTED)


cdef int refuse_tensor(request* target, const tensor_spec* spec, const char* complaint) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' %s", spec.name, complaint)
    return refuse(target, INVALID)


cdef int refuse_output(request* target, const tensor_spec* spec, const char* complaint, int code) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "output '%s' %s", spec.name, complaint)
    return refuse(target, code)


cdef int refuse_datatype(request* target, const tensor_spec* spec, const tensor_view* given) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' has datatype '%.*s'; expected %s", spec.name,
             <int> min(given.datatype_name.size, SHOWN_NAME_BYTES), <const char*> given.datatype_name.data,
             datatype_name(spec.datatype))
    return refuse(target, INVALID)


cdef int refuse_count(request* target, const tensor_spec* spec, int64_t expected, int64_t found) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' has %ld elements; expected %ld for its shape",
             spec.name, <long> found, <long> expected)
    return refuse(target, INVALID)


cdef int refuse_range(request* target, const tensor_spec* spec) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' has a value in its contents that does not fit %s",
             spec.name, datatype_name(spec.datatype))
    return refuse(target, INVALID)


cdef int refuse_shape(request* target, const tensor_spec* spec, const tensor_view* given,
                      const char* complaint) noexcept nogil:
    cdef char expected_text[SHAPE_TEXT_BYTES]
    cdef char given_text[SHAPE_TEXT_BYTES]
    write_shape(expected_text, spec.dims, spec.rank)
    write_shape(given_text, given.shape, given.rank)
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' %s: expected %s, got %s", spec.name, complaint,
             expected_text, given_text)
    return refuse(target, INVALID)


cdef int refuse_unknown_input(const session_core* core, request* target, int32_t index) noexcept nogil:
    cdef bytes_view name = target.view.inputs[index].name
    cdef char known[SHAPE_TEXT_BYTES]
    write_names(known, core.inputs, core.n_inputs)
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%.*s' is unknown; the model has %s",
             <int> min(name.size, SHOWN_NAME_BYTES), <const char*> name.data, known)
    return refuse(target, INVALID)


cdef int refuse_missing_input(const session_core* core, request* target, int32_t place) noexcept nogil:
    cdef int32_t index, expected = 0
    for index in range(core.n_inputs):
        expected += not core.inputs[index].is_hidden
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "input '%s' is missing; got %d of %d inputs",
             core.inputs[place].name, target.view.n_inputs, expected)
    return refuse(target, INVALID)


cdef int refuse_unknown_output(const session_core* core, request* target, bytes_view name) noexcept nogil:
    cdef char known[SHAPE_TEXT_BYTES]
    write_names(known, core.outputs, core.n_outputs)
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "requested output '%.*s' is unknown; the model has %s",
             <int> min(name.size, SHOWN_NAME_BYTES), <const char*> name.data, known)
    return refuse(target, INVALID)


cdef void write_shape(char* text, const int64_t* dims, int32_t rank) noexcept nogil:
    """Write '[2,-1]', cut at the buffer's end."""
    cdef int used = snprintf(text, SHAPE_TEXT_BYTES, "[")
    cdef int32_t axis
    for axis in range(rank):
        if used > SHAPE_TEXT_BYTES - 32:
            used += snprintf(text + used, SHAPE_TEXT_BYTES - used, ",...")
            break
        used += snprintf(text + used, SHAPE_TEXT_BYTES - used, ",%ld" if axis > 0 else "%ld", <long> dims[axis])
    snprintf(text + used, SHAPE_TEXT_BYTES - used, "]")


cdef void write_names(char* text, const tensor_spec* specs, int32_t count) noexcept nogil:
    """Write "'a', 'b'", those that callers see, cut at the buffer's end."""
    cdef int used = 0
    cdef int32_t index
    text[0] = 0
    for index in range(count):
        if specs[index].is_hidden:
            continue
        if used + <int> specs[index].name_size > SHAPE_TEXT_BYTES - 16:
            snprintf(text + used, SHAPE_TEXT_BYTES - used, ", ...")
            return
        used += snprintf(text + used, SHAPE_TEXT_BYTES - used, ", '%s'" if used > 0 else "'%s'", specs[index].name)
