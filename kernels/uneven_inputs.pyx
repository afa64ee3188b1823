"""Says what shape each input of an uneven batch has, pads those that are padded, and makes Triton's batch inputs."""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from kernels.buffers cimport reserve
from kernels.corner cimport corner_walk, open_corner, step_corner
from kernels.datatype cimport datatype_size
from kernels.elements cimport copy_numbers, count_elements, fill_elements
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.instance cimport instance
from kernels.request cimport request
from kernels.session cimport MAX_RANK, bind_tensor, tensor_spec
from kernels.status cimport EXHAUSTED, INVALID
from kernels.sync cimport multiply_overflows
from kernels.uneven_rules cimport (
    ACCUMULATED_COUNT_WITH_ZERO, ELEMENT_COUNT, END_TO_END, ITEM_SHAPE, ITEM_SHAPE_FLATTEN,
    MAX_COUNT_AS_SHAPE, PADDED, batch_input, uneven_input, uneven_rules,
)


cdef int64_t count_all(const uneven_rules* rules, const request* batch, int32_t index) noexcept nogil:
    """Elements of an input in all requests: less than the bytes that may wait."""
    cdef int64_t total = 0
    while batch != NULL:
        total += count_elements(&rules.bound[index], batch.inputs[index].shape)
        batch = batch.next
    return total


cdef bint shape_input(instance* used, const request* batch, int32_t index, int64_t* shape) noexcept nogil:
    """Correct the shape of a batch's input, which is that of its first request's rows; True when some are to be padded."""
    cdef const uneven_rules* rules = used.accepted.uneven
    cdef const uneven_input* known = &rules.inputs[index]
    cdef bint is_padded = False
    cdef int32_t axis
    if known.form == END_TO_END:
        shape[0] = count_all(rules, batch, index)
    if known.form != PADDED:
        return False
    for axis in range(1, rules.bound[index].rank):
        if known.lengths[axis] >= 0:
            shape[axis] = used.uneven.longest[known.lengths[axis]]
    while batch != NULL and not is_padded:
        for axis in range(1, rules.bound[index].rank):
            is_padded = is_padded or batch.inputs[index].shape[axis] != shape[axis]
        batch = batch.next
    return is_padded


# ---- padding


cdef int gather_padded(instance* used, const request* batch, int32_t index, const int64_t* shape,
                       failure* error) noexcept nogil:
    """Copy every request's rows into the corners of the batch's, whose other elements are the filler."""
    cdef const tensor_spec* spec = &used.core.inputs[index]
    cdef size_t width = datatype_size(spec.datatype)
    cdef int64_t size = <int64_t> width, row
    cdef uint8_t* target
    cdef int32_t axis
    for axis in range(spec.rank):
        if multiply_overflows(size, shape[axis], &size):
            error.code = EXHAUSTED
            snprintf(error.text, FAILURE_TEXT_BYTES, "input '%s' has more bytes in a padded batch than 63 bits can count",
                     spec.name)
            return -1
    if reserve(&used.core.place, &used.input_buffers[index], &used.input_capacities[index], <size_t> size, error) != 0:
        return -1
    target = used.input_buffers[index]
    row = size // shape[0]
    while batch != NULL:
        pad_rows(&used.accepted.uneven.inputs[index], spec, batch, index, shape, target, <size_t> (batch.rows * row))
        target += batch.rows * row
        batch = batch.next
    return bind_tensor(used.core, spec, used.input_buffers[index], <size_t> size, shape, &used.inputs[index], error)


cdef void pad_rows(const uneven_input* known, const tensor_spec* spec, const request* member, int32_t index,
                   const int64_t* shape, uint8_t* target, size_t size) noexcept nogil:
    """Write one request's rows, padded to the batch's shape, into `size` bytes."""
    cdef size_t width = datatype_size(spec.datatype), part
    cdef const uint8_t* source = member.inputs[index].data
    cdef int64_t[MAX_RANK] large
    cdef corner_walk walk
    memcpy(large, shape, spec.rank * sizeof(int64_t))
    large[0] = member.rows
    if size != member.inputs[index].size:
        fill_elements(target, size, known.filler, width)
    open_corner(&walk, member.inputs[index].shape, large, spec.rank)
    part = <size_t> walk.run * width
    while walk.left > 0:
        copy_numbers(target + <size_t> walk.place * width, source, part, spec.datatype)
        source += part
        step_corner(&walk)


# ---- batch inputs


cdef int make_inputs(instance* used, const request* batch, failure* error) noexcept nogil:
    """Make every input that tells of the batch. 0, or -1 with `error` set."""
    cdef const uneven_rules* rules = used.accepted.uneven
    cdef int32_t index
    for index in range(rules.n_made):
        if make_input(used, &rules.made[index], batch, error) != 0:
            return -1
    return 0


cdef int make_input(instance* used, const batch_input* made, const request* batch, failure* error) noexcept nogil:
    cdef const tensor_spec* spec = &used.core.inputs[made.input]
    cdef int64_t[2] shape
    cdef size_t size
    shape_made(used.accepted.uneven, made, batch, shape)
    size = <size_t> (shape[0] * (shape[1] if spec.rank == 2 else 1)) * datatype_size(spec.datatype)
    if reserve(&used.core.place, &used.input_buffers[made.input], &used.input_capacities[made.input], size, error) != 0:
        return -1
    if made.kind == MAX_COUNT_AS_SHAPE:
        # Nothing is said of its elements: Triton leaves what was there.
        memset(used.input_buffers[made.input], 0, size)
    elif fill_made(used.accepted.uneven, made, batch, used.input_buffers[made.input]) != 0:
        error.code = INVALID
        snprintf(error.text, FAILURE_TEXT_BYTES, "input '%s' has more elements than INT32 can count for input '%s'",
                 used.core.inputs[made.source].name, spec.name)
        return -1
    return bind_tensor(used.core, spec, used.input_buffers[made.input], size, shape, &used.inputs[made.input], error)


cdef void shape_made(const uneven_rules* rules, const batch_input* made, const request* batch,
                     int64_t* shape) noexcept nogil:
    """Write a batch input's shape: counts are one for each request, shapes one for each row."""
    cdef const tensor_spec* source = &rules.bound[made.source]
    cdef int64_t requests = 0, rows = 0, most = 0
    while batch != NULL:
        requests += 1
        rows += batch.rows
        most = max(most, count_elements(source, batch.inputs[made.source].shape))
        batch = batch.next
    shape[0], shape[1] = requests, source.rank - 1
    if made.kind == ACCUMULATED_COUNT_WITH_ZERO:
        shape[0] = requests + 1
    elif made.kind == MAX_COUNT_AS_SHAPE:
        shape[0] = most
    elif made.kind == ITEM_SHAPE:
        shape[0] = rows
    elif made.kind == ITEM_SHAPE_FLATTEN:
        shape[0] = rows * (source.rank - 1)


cdef int fill_made(const uneven_rules* rules, const batch_input* made, const request* batch,
                   uint8_t* target) noexcept nogil:
    """Write a batch input's elements. 0, or -1 when one is too large for INT32."""
    cdef const tensor_spec* source = &rules.bound[made.source]
    cdef const int64_t* shape
    cdef int64_t place = 0, total = 0, elements, row
    cdef int32_t axis
    if made.kind == ACCUMULATED_COUNT_WITH_ZERO:
        put_number(made, target, &place, 0)
    while batch != NULL:
        shape = batch.inputs[made.source].shape
        if made.kind in (ITEM_SHAPE, ITEM_SHAPE_FLATTEN):
            for row in range(batch.rows):
                for axis in range(1, source.rank):
                    if put_number(made, target, &place, shape[axis]) != 0:
                        return -1
        else:
            elements = count_elements(source, shape)
            total += elements
            if put_number(made, target, &place, elements if made.kind == ELEMENT_COUNT else total) != 0:
                return -1
        batch = batch.next
    return 0


cdef int put_number(const batch_input* made, uint8_t* target, int64_t* place, int64_t number) noexcept nogil:
    cdef float single = <float> number
    cdef int32_t whole = <int32_t> number
    if number > INT32_MAX and not made.is_float:
        return -1
    if made.is_float:
        memcpy(target + 4 * place[0], &single, 4)
    else:
        memcpy(target + 4 * place[0], &whole, 4)
    place[0] += 1
    return 0
