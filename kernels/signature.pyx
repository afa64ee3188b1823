"""Checks a decoded request against a model's inputs and outputs; every refusal names the tensor, expected and given.

Whatever the checks let through is safe for the gather: each bound tensor has exactly the bytes that its shape and
datatype need, and every string lies within its tensor.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy

from kernels.codec cimport (
    CONTENTS_FIELDS, bytes_view, contents_bytes, contents_field, find_parameter, read_contents,
    request_view, tensor_view,
)
from kernels.datatype cimport DT_BYTES, datatype_name, datatype_size
from kernels.elements cimport count_elements
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.gpu_place cimport stays_on_gpu
from kernels.interface cimport convert_shape
from kernels.padding cimport check_lengths
from kernels.refusals cimport (
    refuse, refuse_count, refuse_datatype, refuse_memory, refuse_missing_input, refuse_range, refuse_shape,
    refuse_tensor, refuse_unknown_input,
)
from kernels.request cimport bound_tensor, request, reserve
from kernels.requested_outputs cimport bind_outputs
from kernels.session cimport MAX_RANK, session_core, tensor_spec
from kernels.shared_memory cimport is_on_gpu, read_region
from kernels.shared_place cimport find_place, shared_place
from kernels.status cimport EXHAUSTED, INVALID
from kernels.sync cimport add_overflows, multiply_overflows
from kernels.uneven_rules cimport is_padded

cdef enum:
    # The product of the other dimensions of a tensor with a dimension of 0. Such a tensor costs its sender nothing,
    # but a model that reduces over the empty dimension gives one element for each of them.
    MAX_EMPTY_OUTLINE = 1 << 20
    SCRATCH_ALIGNMENT = 16   # malloc's: a tensor laid out there may be run on where it lies

cdef int64_t _no_dimensions = 0
cdef const int64_t* NO_DIMENSIONS = <const int64_t*> &_no_dimensions  # a bound scalar's shape: not NULL, never read


cdef int bind_request(const signature* accepted, request* target) noexcept nogil:
    """Fill `target.inputs`, `.outputs` and `.rows`. 0, or -1 with `target.error` set."""
    target.held_bytes = <int64_t> target.message_size
    if reserve_bindings(accepted, target) != 0:
        return -1
    if bind_inputs(accepted, target) != 0 or bind_outputs(accepted, target) != 0:
        return -1
    return lay_out_contents(accepted, target)


cdef bint can_merge(const signature* accepted, const request* first, const request* other) noexcept nogil:
    """Tell whether two bound requests have the same inputs, and agree in every dimension but the first and padded ones."""
    cdef int32_t index, axis
    cdef const tensor_spec* spec
    for index in range(accepted.core.n_inputs):
        spec = &accepted.core.inputs[index]
        if spec.is_optional and (first.inputs[index].shape == NULL) != (other.inputs[index].shape == NULL):
            return False
        if spec.inner_elements >= 0 or first.inputs[index].shape == NULL:
            continue
        for axis in range(1, spec.rank):
            if first.inputs[index].shape[axis] != other.inputs[index].shape[axis] and not (
                    accepted.uneven != NULL and is_padded(accepted.uneven, index, axis)):
                return False
    return True


cdef int reserve_bindings(const signature* accepted, request* target) noexcept nogil:
    """Make room for one binding per model input and output: more outputs are refused before they are bound."""
    cdef const session_core* core = accepted.core
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
    if accepted.inputs != core.inputs and reserve(
            <void**> &target.shapes, &target.shapes_capacity, core.n_inputs * MAX_RANK * sizeof(int64_t)) != 0:
        return refuse_memory(target)
    return 0


# ---- inputs


cdef int bind_inputs(const signature* accepted, request* target) noexcept nogil:
    cdef const session_core* core = accepted.core
    cdef const request_view* view = &target.view
    cdef int32_t index, place, raw = 0
    for index in range(core.n_inputs):
        target.inputs[index] = bound_tensor(NULL, 0, NULL, NULL, 0)
    target.rows = -1
    for index in range(view.n_inputs):
        place = find_input(core, view, index)
        if place < 0 or core.inputs[place].is_hidden:
            return refuse_unknown_input(core, target, index)
        if target.inputs[place].shape != NULL:
            return refuse_tensor(target, &core.inputs[place], "is given twice")
        if bind_input(accepted, target, index, place, &raw) != 0:
            return -1
    if raw != view.n_raw:
        return refuse_raw(target, raw)
    for index in range(core.n_inputs):
        if target.inputs[index].shape == NULL and not (core.inputs[index].is_optional or core.inputs[index].is_hidden):
            return refuse_missing_input(core, target, index)
    if accepted.max_batch_size == 0 or target.rows < 0:
        target.rows = 1
    return check_lengths(accepted.uneven, core, target) if accepted.uneven != NULL else 0


cdef int refuse_raw(request* target, int32_t wanted) noexcept nogil:
    """Refuse a request whose inputs want another number of raw contents than it has."""
    snprintf(target.error.text, FAILURE_TEXT_BYTES,
             "expected one raw_input_contents entry for each of the %d inputs%s, got %d", wanted,
             b" without contents or shared memory" if wanted < target.view.n_inputs else b"", target.view.n_raw)
    return refuse(target, INVALID)


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


cdef int bind_input(const signature* accepted, request* target, int32_t index, int32_t place,
                    int32_t* raw) noexcept nogil:
    """Bind one input; `raw` counts the raw contents that have found theirs."""
    cdef const tensor_spec* spec = &accepted.inputs[place]
    cdef const tensor_view* given = &target.view.inputs[index]
    cdef bound_tensor* bound = &target.inputs[place]
    cdef shared_place shared
    cdef int64_t elements = 0
    if given.datatype != spec.datatype:
        return refuse_datatype(target, spec, given)
    if check_shape(accepted, target, spec, given, &elements) != 0:
        return -1
    bound.shape = shape_for_model(accepted, target, given, place)
    if find_place(accepted.regions, target, index, spec, &shared) != 0:
        return -1
    if shared.home != NULL:
        return bind_shared(target, spec, given, elements, &shared, bound)
    if target.view.n_raw == 0 or has_typed(given) and target.view.n_raw < target.view.n_inputs:
        return check_typed(target, spec, given, elements, index, bound)
    raw[0] += 1
    if raw[0] > target.view.n_raw:
        return refuse_raw(target, count_raw(target))
    return bind_raw(target, spec, given, elements, &target.view.raw[raw[0] - 1], bound)


cdef const int64_t* shape_for_model(const signature* accepted, request* target, const tensor_view* given,
                                    int32_t place) noexcept nogil:
    """Return a checked shape in the model's form: where it lies, or in the request's shapes when it is reshaped."""
    cdef int64_t* converted
    if accepted.inputs == accepted.core.inputs:
        return given.shape if given.rank > 0 else NO_DIMENSIONS
    converted = target.shapes + place * MAX_RANK
    convert_shape(&accepted.inputs[place], given.shape, &accepted.bound[place], converted)
    return converted


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
    if has_typed(given):
        return refuse_tensor(target, spec, "has both raw_input_contents and contents; expected one of them")
    bound.data = raw.data
    bound.size = raw.size
    if spec.datatype == DT_BYTES:
        return check_strings(target, spec, elements, raw)
    return check_size(target, spec, given, elements, raw.size, "of raw content")


cdef int bind_shared(request* target, const tensor_spec* spec, const tensor_view* given, int64_t elements,
                     const shared_place* shared, bound_tensor* bound) noexcept nogil:
    """Bind an input that lies in shared memory; what must be copied is, once every input has been checked."""
    if has_typed(given):
        return refuse_tensor(target, spec, "has contents beside its shared memory; expected one of them")
    bound.home = shared.home
    bound.offset = shared.offset
    bound.size = <size_t> shared.size
    if spec.datatype == DT_BYTES:
        return 0
    return check_size(target, spec, given, elements, bound.size, "in shared memory")


cdef int check_size(request* target, const tensor_spec* spec, const tensor_view* given, int64_t elements, size_t size,
                    const char* source) noexcept nogil:
    """Compare the bytes that there are with those that a tensor of numbers needs."""
    cdef int64_t expected
    if multiply_overflows(elements, datatype_size(spec.datatype), &expected):
        return refuse_shape(target, spec, given, "has more bytes than 63 bits can count")
    if <size_t> expected != size:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "input '%s' has %zu bytes %s; expected %ld for its shape and %s",
                 spec.name, size, source, <long> expected, datatype_name(spec.datatype))
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


cdef int32_t count_raw(const request* target) noexcept nogil:
    """How many inputs have neither typed contents nor shared memory."""
    cdef int32_t index, found = 0
    for index in range(target.view.n_inputs):
        found += not has_typed(&target.view.inputs[index]) and find_parameter(
            &target.view, index, "shared_memory_region", 20) == NULL
    return found


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


# ---- contents that do not lie in the message as the gather needs them


cdef int lay_out_contents(const signature* accepted, request* target) noexcept nogil:
    """Put typed contents, and what lies in shared memory, into the request's scratch, in the raw layout.

    Numbers in a GPU's memory stay there until they are gathered: a copy of them would only be copied again.
    """
    cdef const request_view* view = &target.view
    cdef int32_t index, place
    cdef int64_t position = 0
    cdef bound_tensor* bound
    if view.n_raw == view.n_inputs:
        return 0
    if reserve_scratch(accepted, target) != 0:
        return -1
    for index in range(view.n_inputs):
        place = find_input(accepted.core, view, index)
        bound = &target.inputs[place]
        if bound.data != NULL or stays_there(accepted, place, bound):
            continue
        bound.data = target.scratch + position
        position += align_up(bound.size)
        if bound.home != NULL:
            if copy_shared(&accepted.bound[place], target, bound) != 0:
                return -1
        elif bound.size > 0 and read_contents(view, index, accepted.inputs[place].datatype, <uint8_t*> bound.data) != 0:
            return refuse_range(target, &accepted.inputs[place])
    return 0


cdef inline bint stays_there(const signature* accepted, int32_t place, const bound_tensor* bound) noexcept nogil:
    return not accepted.reads_inputs and stays_on_gpu(&accepted.core.inputs[place], bound)


cdef int64_t align_up(size_t size) noexcept nogil:
    return <int64_t> (size + SCRATCH_ALIGNMENT - 1) & -<int64_t> SCRATCH_ALIGNMENT


cdef int reserve_scratch(const signature* accepted, request* target) noexcept nogil:
    """Make room for all contents that are to be laid out, and count those of shared memory as the request's bytes."""
    cdef int64_t total = 0, shared = 0
    cdef int32_t place
    cdef const bound_tensor* bound
    for place in range(accepted.core.n_inputs):
        bound = &target.inputs[place]
        if bound.data != NULL or stays_there(accepted, place, bound):
            continue
        if bound.size > <size_t> (INT64_MAX // 2) or add_overflows(total, align_up(bound.size), &total):
            return refuse_memory(target)
        if bound.home != NULL:
            shared += <int64_t> bound.size
    if shared > accepted.max_shared_bytes:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "the request has %ld bytes in shared memory; the server holds at most %ld of requests", <long> shared,
                 <long> accepted.max_shared_bytes)
        return refuse(target, EXHAUSTED)
    target.held_bytes += shared
    if reserve(<void**> &target.scratch, &target.scratch_capacity, <size_t> total) != 0:
        return refuse_memory(target)
    return 0


cdef int copy_shared(const tensor_spec* spec, request* target, bound_tensor* bound) noexcept nogil:
    """Copy an input out of its region; strings are checked in the copy, which nobody else can change."""
    cdef bytes_view content = bytes_view(bound.data, bound.size)
    if read_region(bound.home, bound.offset, <uint8_t*> bound.data, bound.size) != 0:
        return refuse_tensor(target, spec, "cannot be read from its CUDA shared memory region" if is_on_gpu(bound.home)
                             else b"lies in a shared memory object that has become shorter")
    if spec.datatype != DT_BYTES:
        return 0
    return check_strings(target, spec, count_elements(spec, bound.shape), &content)
