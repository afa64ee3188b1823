"""Checks a decoded request against a model's inputs and outputs; every refusal names the tensor, expected and given.

Whatever the checks let through is safe for the gather: each bound tensor has exactly the bytes that its shape and
datatype need, and every string lies within its tensor.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from kernels.codec cimport (
    CONTENTS_FIELDS, OWNER_FIRST_OUTPUT, bytes_view, contents_bytes, contents_field, find_parameter, read_contents,
    request_view, tensor_view,
)
from kernels.datatype cimport DT_BYTES, datatype_name, datatype_size
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport (
    refuse, refuse_count, refuse_datatype, refuse_memory, refuse_missing_input, refuse_output, refuse_range,
    refuse_shape, refuse_tensor, refuse_unknown_input, refuse_unknown_output,
)
from kernels.request cimport bound_tensor, request
from kernels.session cimport session_core, tensor_spec
from kernels.status cimport INVALID, UNIMPLEMENTED
from kernels.sync cimport add_overflows, multiply_overflows

cdef enum:
    # The product of the other dimensions of a tensor with a dimension of 0. Such a tensor costs its sender nothing,
    # but a model that reduces over the empty dimension gives one element for each of them.
    MAX_EMPTY_OUTLINE = 1 << 20

cdef int64_t _no_dimensions = 0
cdef const int64_t* NO_DIMENSIONS = <const int64_t*> &_no_dimensions  # a bound scalar's shape: not NULL, never read


cdef int bind_request(const signature* accepted, request* target) noexcept nogil:
    """Fill `target.inputs`, `.outputs` and `.rows`. 0, or -1 with `target.error` set."""
    if reserve_bindings(accepted.core, target) != 0:
        return -1
    if bind_inputs(accepted, target) != 0 or bind_outputs(accepted.core, target) != 0:
        return -1
    return bind_typed_contents(accepted.core, target)


cdef bint can_merge(const signature* accepted, const request* first, const request* other) noexcept nogil:
    """Tell whether two bound requests agree in every dimension but the first."""
    cdef int32_t index, axis
    cdef const tensor_spec* spec
    for index in range(accepted.core.n_inputs):
        spec = &accepted.core.inputs[index]
        if spec.inner_elements >= 0:
            continue
        for axis in range(1, spec.rank):
            if first.inputs[index].shape[axis] != other.inputs[index].shape[axis]:
                return False
    return True


cdef int reserve_bindings(const session_core* core, request* target) noexcept nogil:
    """Make room for one binding per model input and output: more outputs are refused before they are bound."""
    cdef void* larger
    if target.inputs_capacity < core.n_inputs:
        larger = realloc(target.inputs, core.n_inputs * sizeof(bound_tensor))
        if larger == NULL:
            return refuse_memory(target)
        target.inputs = <bound_tensor*> larger
        target.inputs_capacity = core.n_inputs
    if target.outputs_capacity < core.n_outputs:
        larger = realloc(target.outputs, core.n_outputs * sizeof(int32_t))
        if larger == NULL:
            return refuse_memory(target)
        target.outputs = <int32_t*> larger
        target.outputs_capacity = core.n_outputs
    return 0


# ---- inputs


cdef int bind_inputs(const signature* accepted, request* target) noexcept nogil:
    cdef const session_core* core = accepted.core
    cdef const request_view* view = &target.view
    cdef int32_t index, place
    for index in range(core.n_inputs):
        target.inputs[index].shape = NULL
    target.rows = -1
    if view.n_raw > 0 and view.n_raw != view.n_inputs:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "expected one raw_input_contents entry for each of the %d inputs, got %d", view.n_inputs, view.n_raw)
        return refuse(target, INVALID)
    for index in range(view.n_inputs):
        place = find_input(core, view, index)
        if place < 0:
            return refuse_unknown_input(core, target, index)
        if target.inputs[place].shape != NULL:
            return refuse_tensor(target, &core.inputs[place], "is given twice")
        if bind_input(accepted, target, index, place) != 0:
            return -1
    for index in range(core.n_inputs):
        if target.inputs[index].shape == NULL:
            return refuse_missing_input(core, target, index)
    if accepted.max_batch_size == 0 or target.rows < 0:
        target.rows = 1
    return 0


cdef int32_t find_input(const session_core* core, const request_view* view, int32_t index) noexcept nogil:
    """Return which model input the request's input `index` names, or -1. The model's own order is the quick way."""
    cdef int32_t place
    if index < core.n_inputs and same_name(&core.inputs[index], view.inputs[index].name):
        return index
    for place in range(core.n_inputs):
        if same_name(&core.inputs[place], view.inputs[index].name):
            return place
    return -1


cdef bint same_name(const tensor_spec* spec, bytes_view name) noexcept nogil:
    return spec.name_size == name.size and memcmp(spec.name, name.data, name.size) == 0


cdef int bind_input(const signature* accepted, request* target, int32_t index, int32_t place) noexcept nogil:
    cdef const tensor_spec* spec = &accepted.core.inputs[place]
    cdef const tensor_view* given = &target.view.inputs[index]
    cdef int64_t elements = 0
    if find_parameter(&target.view, index, "shared_memory_region", 20) != NULL:
        refuse_tensor(target, spec, "refers to shared memory, which this server does not offer")
        return refuse(target, UNIMPLEMENTED)
    if given.datatype != spec.datatype:
        return refuse_datatype(target, spec, given)
    if check_shape(accepted, target, spec, given, &elements) != 0:
        return -1
    target.inputs[place].shape = given.shape if given.rank > 0 else NO_DIMENSIONS
    if target.view.n_raw > 0:
        return bind_raw(target, spec, given, elements, &target.view.raw[index], &target.inputs[place])
    return check_typed(target, spec, given, elements, index, &target.inputs[place])


cdef int check_shape(const signature* accepted, request* target, const tensor_spec* spec, const tensor_view* given,
                     int64_t* elements) noexcept nogil:
    """Compare rank and dimensions with the model's, count the elements without overflow, agree on the batch size."""
    cdef int32_t axis
    cdef int64_t dimension, outline = 1
    if given.rank != spec.rank:
        return refuse_shape(target, spec, given, "has the wrong rank")
    elements[0] = 1
    for axis in range(given.rank):
        dimension = given.shape[axis]
        if dimension < 0:
            return refuse_shape(target, spec, given, "has a negative dimension")
        if spec.dims[axis] >= 0 and dimension != spec.dims[axis]:
            return refuse_shape(target, spec, given, "has the wrong shape")
        if multiply_overflows(elements[0], dimension, elements):
            return refuse_shape(target, spec, given, "has more elements than 63 bits can count")
        if dimension > 0 and multiply_overflows(outline, dimension, &outline):
            outline = INT64_MAX
    if elements[0] == 0 and outline > MAX_EMPTY_OUTLINE:
        return refuse_shape(target, spec, given, "has no element and too large dimensions")
    if accepted.max_batch_size > 0:
        return check_batch(accepted, target, spec, given)
    return 0


cdef int check_batch(const signature* accepted, request* target, const tensor_spec* spec,
                     const tensor_view* given) noexcept nogil:
    cdef int64_t rows = given.shape[0]
    if rows == 0:
        return refuse_shape(target, spec, given, "has a batch of 0 rows")
    if rows > accepted.max_batch_size:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "input '%s' has a batch of %ld rows; expected at most %ld (max_batch_size)",
                 spec.name, <long> rows, <long> accepted.max_batch_size)
        return refuse(target, INVALID)
    if target.rows >= 0 and rows != target.rows:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "input '%s' has a batch of %ld rows, another input has %ld; expected the same in all inputs",
                 spec.name, <long> rows, <long> target.rows)
        return refuse(target, INVALID)
    target.rows = rows
    return 0


cdef int bind_raw(request* target, const tensor_spec* spec, const tensor_view* given, int64_t elements,
                  const bytes_view* raw, bound_tensor* bound) noexcept nogil:
    cdef int64_t expected
    if has_typed(given):
        return refuse_tensor(target, spec, "has both raw_input_contents and contents; expected one of them")
    bound.data = raw.data
    bound.size = raw.size
    if spec.datatype == DT_BYTES:
        return check_strings(target, spec, elements, raw)
    if multiply_overflows(elements, datatype_size(spec.datatype), &expected):
        return refuse_shape(target, spec, given, "has more bytes than 63 bits can count")
    if <size_t> expected != raw.size:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "input '%s' has %zu bytes of raw content; expected %ld for its shape and %s",
                 spec.name, raw.size, <long> expected, datatype_name(spec.datatype))
        return refuse(target, INVALID)
    return 0


cdef int check_strings(request* target, const tensor_spec* spec, int64_t elements, const bytes_view* raw) noexcept nogil:
    """Walk the length prefixes of raw BYTES content: each string inside, exactly `elements` of them."""
    cdef size_t position = 0
    cdef int64_t found = 0
    cdef uint32_t length
    while position < raw.size:
        if raw.size - position < 4:
            return refuse_tensor(target, spec, "has raw BYTES content that ends within a length prefix")
        memcpy(&length, raw.data + position, 4)
        position += 4
        if length > raw.size - position:
            snprintf(target.error.text, FAILURE_TEXT_BYTES,
                     "input '%s' has a BYTES element of %u bytes where %zu are left; expected 4-byte little-endian "
                     "length prefixes", spec.name, length, raw.size - position)
            return refuse(target, INVALID)
        position += length
        found += 1
    if found != elements:
        return refuse_count(target, spec, elements, found)
    return 0


cdef bint has_typed(const tensor_view* given) noexcept nogil:
    cdef int field
    if not given.has_contents:
        return False
    for field in range(1, CONTENTS_FIELDS):
        if given.counts[field] > 0:
            return True
    return False


cdef int check_typed(request* target, const tensor_spec* spec, const tensor_view* given, int64_t elements,
                     int32_t index, bound_tensor* bound) noexcept nogil:
    """Check the counts of typed contents; the values themselves are laid out once every input has been checked."""
    cdef int carrier = contents_field(spec.datatype), field
    if carrier == 0 and (elements > 0 or has_typed(given)):
        return refuse_tensor(target, spec, "has a datatype that only raw_input_contents can carry")
    for field in range(1, CONTENTS_FIELDS):
        if field != carrier and given.counts[field] > 0:
            snprintf(target.error.text, FAILURE_TEXT_BYTES,
                     "input '%s' has values in field %d of contents; expected %s in field %d",
                     spec.name, field, datatype_name(spec.datatype), carrier)
            return refuse(target, INVALID)
    if carrier != 0 and <int64_t> given.counts[carrier] != elements:
        return refuse_count(target, spec, elements, given.counts[carrier])
    bound.data = NULL
    bound.size = <size_t> contents_bytes(&target.view, index, spec.datatype) if carrier != 0 else 0
    return 0


cdef int bind_typed_contents(const session_core* core, request* target) noexcept nogil:
    """Lay typed contents out in the request's scratch, in the raw layout."""
    cdef const request_view* view = &target.view
    cdef int32_t index, place
    cdef int64_t total = 0
    cdef size_t position = 0
    if view.n_raw > 0:
        return 0
    for place in range(core.n_inputs):
        if add_overflows(total, <int64_t> target.inputs[place].size, &total):
            return refuse_memory(target)
    if reserve_scratch(target, <size_t> total) != 0:
        return refuse_memory(target)
    for index in range(view.n_inputs):
        place = find_input(core, view, index)
        target.inputs[place].data = target.scratch + position
        if target.inputs[place].size > 0 and read_contents(
                view, index, core.inputs[place].datatype, target.scratch + position) != 0:
            return refuse_range(target, &core.inputs[place])
        position += target.inputs[place].size
    return 0


cdef int reserve_scratch(request* target, size_t size) noexcept nogil:
    if size <= target.scratch_capacity and target.scratch != NULL:
        return 0
    free(target.scratch)
    target.scratch = <uint8_t*> malloc(size + 64)
    target.scratch_capacity = size + 64 if target.scratch != NULL else 0
    return 0 if target.scratch != NULL else -1


# ---- outputs


cdef int bind_outputs(const session_core* core, request* target) noexcept nogil:
    """Resolve the requested outputs; none requested means all, in the model's order."""
    cdef const request_view* view = &target.view
    cdef int32_t index, place, earlier
    target.n_outputs = view.n_outputs if view.n_outputs > 0 else core.n_outputs
    for index in range(target.n_outputs):
        if view.n_outputs == 0:
            target.outputs[index] = index
            continue
        place = find_output(core, view.outputs[index].name)
        if place < 0:
            return refuse_unknown_output(core, target, view.outputs[index].name)
        for earlier in range(index):
            if target.outputs[earlier] == place:
                return refuse_output(target, &core.outputs[place], "is requested twice", INVALID)
        target.outputs[index] = place
        if find_parameter(view, OWNER_FIRST_OUTPUT - index, "shared_memory_region", 20) != NULL:
            return refuse_output(target, &core.outputs[place], "asks for shared memory, which this server does not offer",
                                 UNIMPLEMENTED)
        if find_parameter(view, OWNER_FIRST_OUTPUT - index, "classification", 14) != NULL:
            return refuse_output(target, &core.outputs[place], "asks for classification, which this server does not offer",
                                 UNIMPLEMENTED)
    return 0


cdef int32_t find_output(const session_core* core, bytes_view name) noexcept nogil:
    cdef int32_t place
    for place in range(core.n_outputs):
        if same_name(&core.outputs[place], name):
            return place
    return -1
