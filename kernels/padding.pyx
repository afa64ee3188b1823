"""Bounds what padding costs: a batch may have so many times the elements that its requests have when each runs alone.

Sizes of padded inputs, in elements, are what a run's cost is judged by. They are added up as doubles, which do not overflow.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from kernels.datatype cimport datatype_size
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport refuse
from kernels.request cimport request
from kernels.session cimport session_core
from kernels.status cimport INVALID
from kernels.uneven_rules cimport MAX_LENGTHS, PADDED, length_source, uneven_input, uneven_rules

cdef double MOST_BYTES = <double> (1LL << 60)   # more than may ever wait


cdef inline int64_t find_length(const uneven_rules* rules, const request* member, int32_t index) noexcept nogil:
    """A request's length, rounded up. A dimension has at most as many elements as its tensor, or 2^20 when it has none."""
    cdef const length_source* source = &rules.sources[index]
    cdef int64_t length = member.inputs[source.input].shape[source.axis]
    return (length + rules.multiple - 1) // rules.multiple * rules.multiple


cdef double count_padded(const uneven_rules* rules, const int64_t* lengths, int64_t rows) noexcept nogil:
    """Elements of all padded inputs, when they have these lengths."""
    cdef const uneven_input* padded
    cdef double elements, total = 0
    cdef int32_t index, axis
    for index in range(rules.n_inputs):
        padded = &rules.inputs[index]
        if padded.form != PADDED:
            continue
        elements = <double> rows
        for axis in range(1, rules.bound[index].rank):
            elements *= <double> (lengths[padded.lengths[axis]] if padded.lengths[axis] >= 0
                                  else rules.bound[index].dims[axis])
        total += elements
    return total


cdef bint widen_extent(const uneven_rules* rules, padded_extent* extent, const request* member) noexcept nogil:
    """Add a request to a batch that is made up; False, and the batch as it was, when that would be too much padding."""
    cdef int64_t[MAX_LENGTHS] own, longest
    cdef double alone
    cdef int32_t index
    if rules.n_lengths == 0:
        return True
    for index in range(rules.n_lengths):
        own[index] = find_length(rules, member, index)
        longest[index] = own[index] if extent.rows == 0 else max(own[index], extent.longest[index])
    alone = count_padded(rules, own, member.rows)
    if extent.rows > 0:
        alone += extent.alone
        if count_padded(rules, longest, extent.rows + member.rows) > rules.max_ratio * alone:
            return False
    extent.rows += member.rows
    extent.alone = alone
    memcpy(extent.longest, longest, sizeof(longest))
    return True


cdef void measure_lengths(const uneven_rules* rules, const request* batch, int64_t* longest) noexcept nogil:
    """Write how long each length of a batch is once it is padded."""
    cdef int32_t index
    memset(longest, 0, MAX_LENGTHS * sizeof(int64_t))
    while batch != NULL:
        for index in range(rules.n_lengths):
            longest[index] = max(longest[index], find_length(rules, batch, index))
        batch = batch.next


cdef int check_lengths(const uneven_rules* rules, const session_core* core, request* target) noexcept nogil:
    """Refuse a request whose inputs differ in a length that is one: it would be padded as if they did not. 0, or -1.

    What rounding adds to one that is taken counts among the bytes that wait.
    """
    cdef const length_source* source
    cdef int64_t given, expected
    cdef int32_t index, axis
    for index in range(rules.n_inputs):
        if rules.inputs[index].form != PADDED:
            continue
        for axis in range(1, core.inputs[index].rank):
            if rules.inputs[index].lengths[axis] < 0:
                continue
            source = &rules.sources[rules.inputs[index].lengths[axis]]
            given = target.inputs[index].shape[axis]
            expected = target.inputs[source.input].shape[source.axis]
            if given != expected:
                snprintf(target.error.text, FAILURE_TEXT_BYTES,
                         "input '%s' has %ld elements in dimension %d; expected %ld, as input '%s' has in dimension %d, "
                         "which the model gives the same name", core.inputs[index].name, <long> given, axis,
                         <long> expected, core.inputs[source.input].name, source.axis)
                return refuse(target, INVALID)
    if rules.multiple > 1:
        target.held_bytes += count_rounding(rules, core, target)
    return 0


cdef int64_t count_rounding(const uneven_rules* rules, const session_core* core, const request* target) noexcept nogil:
    """Bytes by which padded inputs grow when lengths are rounded up: a few elements may become as many as one likes."""
    cdef double size, total = 0
    cdef int32_t index, axis, length
    for index in range(rules.n_inputs):
        if rules.inputs[index].form != PADDED:
            continue
        size = <double> datatype_size(core.inputs[index].datatype) * <double> target.rows
        for axis in range(1, core.inputs[index].rank):
            length = rules.inputs[index].lengths[axis]
            size *= <double> (find_length(rules, target, length) if length >= 0 else core.inputs[index].dims[axis])
        total += size - <double> target.inputs[index].size
    return <int64_t> min(total, MOST_BYTES)
