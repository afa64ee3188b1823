"""Gives each request of an uneven batch its part of the outputs: its elements of what lies end to end, its corner of rows.

Whoever reads a part has had it checked first: that a scattered output has as many elements as all requests' shapes say, and
a cropped one the lengths of the padded batch.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kernels.codec cimport bytes_view, output_view
from kernels.corner cimport corner_walk, open_corner, step_corner
from kernels.datatype cimport DT_BYTES, datatype_size
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.instance cimport instance
from kernels.interface cimport convert_in_place
from kernels.request cimport request
from kernels.session cimport MAX_RANK, tensor_data
from kernels.status cimport EXHAUSTED, INTERNAL
from kernels.sync cimport add_overflows, multiply_overflows
from kernels.uneven_batch cimport reserve_cropped
from kernels.uneven_rules cimport CROPPED, SCATTERED, uneven_output, uneven_rules


cdef bint is_scattered(const instance* used, int32_t output) noexcept nogil:
    """Whether an output has all requests' elements end to end, in a batch of any kind."""
    return used.uneven != NULL and used.accepted.uneven.outputs[output].form == SCATTERED


# ---- what the run gave


cdef int check_outputs(instance* used, const request* batch, failure* error) noexcept nogil:
    """Make sure that the outputs can be taken apart. 0, or -1 with `error` set."""
    cdef const uneven_rules* rules = used.accepted.uneven
    cdef int32_t index
    for index in range(rules.n_outputs):
        used.uneven.taken[index] = 0
        if rules.outputs[index].form == SCATTERED and check_total(used, batch, index, error) != 0:
            return -1
        if rules.outputs[index].form == CROPPED and check_padded(used, index, error) != 0:
            return -1
    return 0


cdef int check_total(instance* used, const request* batch, int32_t index, failure* error) noexcept nogil:
    cdef const uneven_output* known = &used.accepted.uneven.outputs[index]
    cdef int64_t total = 0, elements = 0
    while batch != NULL and total >= 0:
        elements = shape_scattered(known, batch, NULL)
        if elements < 0 or add_overflows(total, elements, &total):
            total = -1
        batch = batch.next
    if total == used.results[index].elements:
        return 0
    error.code = INTERNAL
    snprintf(error.text, FAILURE_TEXT_BYTES, "output '%s' has %ld elements; by its batch_output and the shapes of input "
             "'%s' it must have %ld", used.core.outputs[index].name, <long> used.results[index].elements,
             used.core.inputs[known.source].name, <long> total)
    return -1


cdef int check_padded(instance* used, int32_t index, failure* error) noexcept nogil:
    cdef const uneven_output* known = &used.accepted.uneven.outputs[index]
    cdef const tensor_data* result = &used.results[index]
    cdef int64_t longest
    cdef int32_t axis
    for axis in range(1, used.core.outputs[index].rank):
        if known.lengths[axis] < 0:
            continue
        longest = used.uneven.longest[known.lengths[axis]]
        if result.rank != used.core.outputs[index].rank or result.shape[axis] != longest:
            error.code = INTERNAL
            snprintf(error.text, FAILURE_TEXT_BYTES,
                     "output '%s' has %ld elements in dimension %d for inputs that are padded to %ld: the model does not "
                     "keep to the dimension's name; name the output in the parameter uncropped_outputs",
                     used.core.outputs[index].name, <long> (result.shape[axis] if axis < result.rank else 0), axis,
                     <long> longest)
            return -1
    return 0


cdef int64_t shape_scattered(const uneven_output* known, const request* member, int64_t* shape) noexcept nogil:
    """Return how many elements a request has of an output, -1 for more than can be counted; write its shape if asked."""
    cdef const int64_t* source = member.inputs[known.source].shape
    cdef int64_t elements = 1, dimension
    cdef int32_t axis
    for axis in range(known.shape.rank):
        dimension = known.shape.dims[axis] if known.shape.dims[axis] >= 0 else source[axis]
        if multiply_overflows(elements, dimension, &elements):
            return -1
        if shape != NULL:
            shape[axis] = dimension
    return elements


# ---- each request's part


cdef bint slice_uneven(instance* used, const request* member, int64_t first, int32_t place) noexcept nogil:
    """Describe a request's part of a requested output in its view; False for one that goes by rows alone."""
    cdef int32_t output = member.outputs[place]
    cdef int form = used.accepted.uneven.outputs[output].form
    if form == SCATTERED:
        slice_scattered(used, member, output, place)
        return True
    if form != CROPPED or not is_cut(used, member, output):
        return False
    slice_cropped(used, member, output, first, place)
    return True


cdef void slice_scattered(instance* used, const request* member, int32_t output, int32_t place) noexcept nogil:
    cdef const uneven_output* known = &used.accepted.uneven.outputs[output]
    cdef output_view* view = &used.views[place]
    cdef int64_t* shape = used.shapes + place * MAX_RANK
    cdef int64_t taken = used.uneven.taken[output]
    cdef int64_t end = taken + shape_scattered(known, member, shape)
    cdef size_t start = find_byte(used, output, taken)
    view.content = bytes_view(used.results[output].data + start, find_byte(used, output, end) - start)
    view.rank = known.shape.rank
    if used.accepted.outputs != used.accepted.core.outputs:
        view.rank = convert_in_place(&known.shape, &used.accepted.outputs[output], shape)


cdef inline size_t find_byte(const instance* used, int32_t output, int64_t element) noexcept nogil:
    """Where an element of an output begins, or its last one ends."""
    if used.core.outputs[output].datatype == DT_BYTES:
        return used.offsets[output][element]
    return <size_t> element * datatype_size(used.core.outputs[output].datatype)


cdef void pass_scattered(instance* used, const request* member) noexcept nogil:
    """Go past a request's elements of every output, whether it has asked for them or not."""
    cdef const uneven_rules* rules = used.accepted.uneven
    cdef int32_t index
    for index in range(rules.n_outputs):
        if rules.outputs[index].form == SCATTERED:
            used.uneven.taken[index] += shape_scattered(&rules.outputs[index], member, NULL)


# ---- cropping


cdef bint is_cut(const instance* used, const request* member, int32_t output) noexcept nogil:
    """Whether a request is shorter than the batch in a dimension of an output."""
    cdef const uneven_output* known = &used.accepted.uneven.outputs[output]
    cdef int32_t axis
    for axis in range(1, used.core.outputs[output].rank):
        if known.lengths[axis] >= 0 and find_own(used, member, known.lengths[axis]) != used.results[output].shape[axis]:
            return True
    return False


cdef inline int64_t find_own(const instance* used, const request* member, int32_t length) noexcept nogil:
    return member.inputs[used.accepted.uneven.sources[length].input].shape[
        used.accepted.uneven.sources[length].axis]


cdef void slice_cropped(instance* used, const request* member, int32_t output, int64_t first,
                        int32_t place) noexcept nogil:
    """Copy a request's corner of its rows, for which there is room, and describe it."""
    cdef output_view* view = &used.views[place]
    cdef uint8_t* target = used.uneven.cropped + used.uneven.position
    cdef size_t size = copy_corner(used, member, output, first, target)
    view.content = bytes_view(target, size)
    used.uneven.position += size
    shape_cropped(used, member, output, used.shapes + place * MAX_RANK)
    view.rank = used.results[output].rank
    if used.accepted.made != NULL:
        view.rank = convert_in_place(&used.accepted.made[output], &used.accepted.outputs[output],
                                     used.shapes + place * MAX_RANK)


cdef void shape_cropped(const instance* used, const request* member, int32_t output, int64_t* shape) noexcept nogil:
    """Write the shape that a request gets of an output, as the model has it."""
    cdef const uneven_output* known = &used.accepted.uneven.outputs[output]
    cdef int32_t axis
    memcpy(shape, used.results[output].shape, used.results[output].rank * sizeof(int64_t))
    shape[0] = member.rows
    for axis in range(1, used.results[output].rank):
        if known.lengths[axis] >= 0:
            shape[axis] = find_own(used, member, known.lengths[axis])


cdef size_t copy_corner(const instance* used, const request* member, int32_t output, int64_t first,
                        uint8_t* target) noexcept nogil:
    """Copy a request's part of an output; return how many bytes it has. `target` NULL only counts them."""
    cdef const tensor_data* result = &used.results[output]
    cdef int64_t[MAX_RANK] own, whole
    cdef int64_t base
    cdef size_t start, part, size = 0
    cdef corner_walk walk
    shape_cropped(used, member, output, own)
    memcpy(whole, result.shape, result.rank * sizeof(int64_t))
    base = first * (result.elements // whole[0])
    whole[0] = member.rows
    open_corner(&walk, own, whole, result.rank)
    while walk.left > 0:
        start = find_byte(used, output, base + walk.place)
        part = find_byte(used, output, base + walk.place + walk.run) - start
        if target != NULL:
            memcpy(target + size, result.data + start, part)
        size += part
        step_corner(&walk)
    return size


cdef int reserve_crops(instance* used, const request* member, int64_t first, failure* error) noexcept nogil:
    """Make room for all that a request gets cropped. 0, or -1 with `error` set."""
    cdef size_t size = 0
    cdef int32_t index, output
    for index in range(member.n_outputs):
        output = member.outputs[index]
        if used.accepted.uneven.outputs[output].form == CROPPED and is_cut(used, member, output):
            size += copy_corner(used, member, output, first, NULL)
    if reserve_cropped(used.uneven, size) == 0:
        return 0
    error.code = EXHAUSTED
    snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for cropped outputs of %zu bytes", size)
    return -1
