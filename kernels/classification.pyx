"""Finds the largest elements of a row and writes them as Triton does, as elements of a BYTES tensor.

Equal elements come by their index, and those that are not a number last; Triton leaves both open.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from kernels.datatype cimport *
from kernels.interface cimport label_list

cdef enum:
    VALUE_BYTES = 352        # of a double's 309 digits, its fraction and an index, as text
    FIRST_CAPACITY = 256

cdef uint64_t SIGN = 1ULL << 63


cdef struct ranked:
    uint64_t key             # grows with the element
    int64_t index


cdef bint can_classify(int datatype) noexcept nogil:
    """Tell whether a datatype's elements can be put in order, as Triton does it."""
    return datatype in (DT_UINT8, DT_UINT16, DT_UINT32, DT_UINT64, DT_INT8, DT_INT16, DT_INT32, DT_INT64, DT_FP32,
                        DT_FP64)


cdef int append_classes(const uint8_t* row, int64_t elements, int datatype, int64_t classes, const label_list* labels,
                        text_buffer* out) noexcept nogil:
    """Append the `classes` largest of a row's elements, or all when it has fewer. 0, or -1 without memory."""
    cdef int64_t count = min(classes, elements), place
    cdef int failed = 0
    cdef ranked* heap = <ranked*> malloc(<size_t> max(count, <int64_t> 1) * sizeof(ranked))
    if heap == NULL:
        return -1
    rank_largest(row, elements, datatype, heap, count)
    for place in range(count):
        if failed == 0:
            failed = append_class(row, heap[place].index, datatype, labels, out)
    free(heap)
    return failed


# ---- the order


cdef uint64_t order_key(const uint8_t* row, int64_t index, int datatype) noexcept nogil:
    """Return a number that is larger for a larger element, 0 for what is no number."""
    cdef double value
    cdef uint64_t bits
    if datatype == DT_UINT64:
        memcpy(&bits, row + index * 8, 8)
        return bits
    if datatype not in (DT_FP32, DT_FP64):
        return <uint64_t> read_integer(row, index, datatype) ^ SIGN
    value = read_float(row, index, datatype)
    if value != value:
        return 0
    value += 0.0  # minus zero is zero
    memcpy(&bits, &value, 8)
    return ~bits if bits & SIGN else bits | SIGN


cdef int64_t read_integer(const uint8_t* row, int64_t index, int datatype) noexcept nogil:
    """Read an element of any integer type but UINT64, wherever it lies."""
    cdef int64_t wide
    cdef int32_t word
    cdef uint32_t natural_word
    cdef int16_t half
    cdef uint16_t natural_half
    if datatype == DT_INT64:
        memcpy(&wide, row + index * 8, 8)
        return wide
    if datatype == DT_INT32:
        memcpy(&word, row + index * 4, 4)
        return word
    if datatype == DT_UINT32:
        memcpy(&natural_word, row + index * 4, 4)
        return natural_word
    if datatype == DT_INT16:
        memcpy(&half, row + index * 2, 2)
        return half
    if datatype == DT_UINT16:
        memcpy(&natural_half, row + index * 2, 2)
        return natural_half
    return <int64_t> <int8_t> row[index] if datatype == DT_INT8 else <int64_t> row[index]


cdef double read_float(const uint8_t* row, int64_t index, int datatype) noexcept nogil:
    cdef double wide
    cdef float single
    if datatype == DT_FP64:
        memcpy(&wide, row + index * 8, 8)
        return wide
    memcpy(&single, row + index * 4, 4)
    return single


cdef bint comes_before(const ranked* one, const ranked* other) noexcept nogil:
    return one.key > other.key or (one.key == other.key and one.index < other.index)


cdef void rank_largest(const uint8_t* row, int64_t elements, int datatype, ranked* heap, int64_t count) noexcept nogil:
    """Put the `count` first in the order into `heap`, in their order, by a heap whose root is the last of them."""
    cdef ranked candidate
    cdef int64_t index, place
    for index in range(elements):
        candidate = ranked(order_key(row, index, datatype), index)
        if index < count:
            heap[index] = candidate
            if index == count - 1:
                for place in range(count // 2 - 1, -1, -1):
                    sift_down(heap, place, count)
        elif count > 0 and comes_before(&candidate, heap):
            heap[0] = candidate
            sift_down(heap, 0, count)
    for place in range(count - 1, 0, -1):
        candidate = heap[0]
        heap[0] = heap[place]
        heap[place] = candidate
        sift_down(heap, 0, place)


cdef void sift_down(ranked* heap, int64_t place, int64_t count) noexcept nogil:
    """Move an element down until none below it comes later in the order."""
    cdef ranked moved = heap[place]
    cdef int64_t child
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and comes_before(&heap[child], &heap[child + 1]):
            child += 1
        if not comes_before(&moved, &heap[child]):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = moved


# ---- the text


cdef int append_class(const uint8_t* row, int64_t index, int datatype, const label_list* labels,
                      text_buffer* out) noexcept nogil:
    """Append one class with its length prefix."""
    cdef char text[VALUE_BYTES]
    cdef size_t value = <size_t> write_value(text, row, index, datatype), label = 0
    cdef uint32_t size
    if labels != NULL and index < labels.count:
        label = labels.labels[index].size
    size = <uint32_t> (value + (label + 1 if label > 0 else 0))
    if reserve_text(out, 4 + <size_t> size) != 0:
        return -1
    append_text(out, &size, 4)
    append_text(out, text, value)
    if label > 0:
        append_text(out, b":", 1)
        append_text(out, labels.labels[index].data, label)
    return 0


cdef int write_value(char* text, const uint8_t* row, int64_t index, int datatype) noexcept nogil:
    """Write "value:index", the value as C++'s std::to_string writes it; return its length."""
    cdef uint64_t natural
    if datatype in (DT_FP32, DT_FP64):
        return snprintf(text, VALUE_BYTES, "%f:%ld", read_float(row, index, datatype), <long> index)
    if datatype == DT_UINT64:
        memcpy(&natural, row + index * 8, 8)
        return snprintf(text, VALUE_BYTES, "%lu:%ld", <unsigned long> natural, <long> index)
    return snprintf(text, VALUE_BYTES, "%ld:%ld", <long> read_integer(row, index, datatype), <long> index)


cdef int reserve_text(text_buffer* out, size_t size) noexcept nogil:
    cdef size_t wanted = max(out.capacity, <size_t> FIRST_CAPACITY)
    cdef void* larger
    while wanted < out.size + size:
        wanted *= 2
    if wanted == out.capacity:
        return 0
    larger = realloc(out.data, wanted)
    if larger == NULL:
        return -1
    out.data = <uint8_t*> larger
    out.capacity = wanted
    return 0


cdef void append_text(text_buffer* out, const void* text, size_t size) noexcept nogil:
    memcpy(out.data + out.size, text, size)
    out.size += size
