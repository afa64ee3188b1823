"""Reads shared_memory_region, shared_memory_byte_size and shared_memory_offset, and holds the region for the request."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.stdio cimport snprintf

from kernels.codec cimport (
    PARAMETER_INT64, PARAMETER_STRING, PARAMETER_UINT64, bytes_view, find_parameter, parameter_view,
)
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport SHOWN_NAME_BYTES, refuse, refuse_memory
from kernels.request cimport keep_region, request
from kernels.session cimport tensor_spec
from kernels.shared_memory cimport drop_region, hold_region, region_table
from kernels.status cimport INVALID
from kernels.sync cimport add_overflows


cdef int find_place(region_table* table, request* target, int32_t owner, const tensor_spec* spec,
                    shared_place* found) noexcept nogil:
    """Fill `found` from the parameters of an owner. 0, or -1 with the request's error set."""
    cdef const parameter_view* name
    found.home = NULL
    if target.view.n_parameters == 0:
        return 0
    name = find_parameter(&target.view, owner, "shared_memory_region", 20)
    if (read_number(target, owner, spec, "shared_memory_byte_size", 23, name != NULL, &found.size) != 0
            or read_number(target, owner, spec, "shared_memory_offset", 20, False, &found.offset) != 0):
        return -1
    if name == NULL:
        if found.size == 0 and found.offset == 0:
            return 0
        return refuse_place(target, owner, spec, "has shared_memory_byte_size or shared_memory_offset without "
                            "shared_memory_region")
    if name.kind != PARAMETER_STRING:
        return refuse_place(target, owner, spec, "has a shared_memory_region that is no string_param")
    return enter_region(table, target, owner, spec, name.value.as_string, found)


cdef int enter_region(region_table* table, request* target, int32_t owner, const tensor_spec* spec, bytes_view name,
                      shared_place* found) noexcept nogil:
    """Hold the region of a name, if it has room for the place."""
    cdef int64_t end = 0
    found.home = hold_region(table, name)
    if found.home == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "%s '%s' is in shared memory region '%.*s', which is not registered",
                 owner_kind(owner), spec.name, <int> min(name.size, SHOWN_NAME_BYTES), <const char*> name.data)
        return refuse(target, INVALID)
    if keep_region(target, found.home) != 0:
        drop_region(found.home)
        return refuse_memory(target)
    if add_overflows(found.offset, found.size, &end) or end > found.home.size:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "%s '%s' has %ld bytes from byte %ld on of shared memory region '%.*s', which has %ld",
                 owner_kind(owner), spec.name, <long> found.size, <long> found.offset,
                 <int> min(name.size, SHOWN_NAME_BYTES), <const char*> name.data, <long> found.home.size)
        return refuse(target, INVALID)
    return 0


cdef int read_number(request* target, int32_t owner, const tensor_spec* spec, const char* key, size_t size,
                     bint is_needed, int64_t* value) noexcept nogil:
    """Read a parameter that counts bytes; 0 where it is left out and may be."""
    cdef const parameter_view* given = find_parameter(&target.view, owner, key, size)
    value[0] = 0
    if given == NULL and not is_needed:
        return 0
    if given == NULL or given.kind not in (PARAMETER_INT64, PARAMETER_UINT64) or given.value.as_uint64 > INT64_MAX:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "%s '%s' needs %s as an int64_param of 0 or more",
                 owner_kind(owner), spec.name, key)
        return refuse(target, INVALID)
    value[0] = given.value.as_int64
    return 0


cdef const char* owner_kind(int32_t owner) noexcept nogil:
    return b"input" if owner >= 0 else b"output"


cdef int refuse_place(request* target, int32_t owner, const tensor_spec* spec, const char* complaint) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "%s '%s' %s", owner_kind(owner), spec.name, complaint)
    return refuse(target, INVALID)


cdef bint places_overlap(const shared_place* one, const shared_place* other) noexcept nogil:
    """Tell whether two places have a byte in common, also by different regions of one object."""
    cdef int64_t first, second
    if one.home == NULL or other.home == NULL or one.home.device != other.home.device:
        return False
    if one.home.inode != other.home.inode:
        return False
    # Below 2^63: registration has checked the ends of both regions.
    first = one.home.offset + one.offset
    second = other.home.offset + other.offset
    return first < second + other.size and second < first + one.size
