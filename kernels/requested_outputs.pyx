"""Resolves the outputs that a request names, and reads the parameters that send one elsewhere or as classes."""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport realloc
from libc.string cimport memcmp

from kernels.classification cimport can_classify
from kernels.codec cimport OWNER_FIRST_OUTPUT, PARAMETER_INT64, bytes_view, find_parameter, parameter_view, request_view
from kernels.datatype cimport DT_BYTES, datatype_name, datatype_size
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport refuse, refuse_memory, refuse_output, refuse_unknown_output
from kernels.request cimport delivery, request
from kernels.session cimport session_core, tensor_spec
from kernels.shared_place cimport find_place, places_overlap, shared_place
from kernels.signature cimport signature
from kernels.status cimport INVALID
from kernels.sync cimport multiply_overflows


cdef int bind_outputs(const signature* accepted, request* target) noexcept nogil:
    """Fill `target.outputs` and `.deliveries`; none requested means all, in the model's order."""
    cdef const session_core* core = accepted.core
    cdef const request_view* view = &target.view
    cdef int32_t index, place
    target.n_outputs = view.n_outputs if view.n_outputs > 0 else list_outputs(core, target.outputs)
    for index in range(view.n_outputs):
        place = find_output(core, view.outputs[index].name)
        if place < 0:
            return refuse_unknown_output(core, target, view.outputs[index].name)
        if is_among(target.outputs, index, place):
            return refuse_output(target, &core.outputs[place], "is requested twice", INVALID)
        target.outputs[index] = place
    if view.n_parameters == 0 or view.n_outputs == 0:
        return 0
    return bind_deliveries(accepted, target)


cdef int32_t list_outputs(const session_core* core, int32_t* places) noexcept nogil:
    """Write down every output that callers see; return how many there are."""
    cdef int32_t place, count = 0
    for place in range(core.n_outputs):
        places[count] = place
        count += not core.outputs[place].is_hidden
    return count


cdef int32_t find_output(const session_core* core, bytes_view name) noexcept nogil:
    cdef const tensor_spec* spec
    cdef int32_t place
    for place in range(core.n_outputs):
        spec = &core.outputs[place]
        if spec.name_size == name.size and memcmp(spec.name, name.data, name.size) == 0 and not spec.is_hidden:
            return place
    return -1


cdef bint is_among(const int32_t* places, int32_t count, int32_t place) noexcept nogil:
    cdef int32_t index
    for index in range(count):
        if places[index] == place:
            return True
    return False


cdef int bind_deliveries(const signature* accepted, request* target) noexcept nogil:
    """Read each requested output's parameters; one that leaves as the model gave it has a delivery of zeros."""
    cdef int32_t index
    cdef void* larger = realloc(target.deliveries, <size_t> target.n_outputs * sizeof(delivery))
    if larger == NULL:
        return refuse_memory(target)
    target.deliveries = <delivery*> larger
    for index in range(target.n_outputs):
        target.deliveries[index] = delivery(NULL, 0, 0, 0)
        if bind_destination(accepted, target, index) != 0 or bind_classes(accepted, target, index) != 0:
            return -1
        if target.deliveries[index].home != NULL or target.deliveries[index].classes > 0:
            target.has_deliveries = True
    return 0


# ---- into shared memory


cdef int bind_destination(const signature* accepted, request* target, int32_t index) noexcept nogil:
    """Read where in shared memory an output goes; it may share no byte with another output of the request."""
    cdef const tensor_spec* spec = &accepted.core.outputs[target.outputs[index]]
    cdef delivery* asked = &target.deliveries[index]
    cdef shared_place place, other
    cdef int32_t earlier
    if find_place(accepted.regions, target, OWNER_FIRST_OUTPUT - index, spec, &place) != 0:
        return -1
    if place.home == NULL:
        return 0
    for earlier in range(index):
        other = shared_place(target.deliveries[earlier].home, target.deliveries[earlier].offset,
                             target.deliveries[earlier].size)
        if places_overlap(&place, &other):
            return refuse_output(target, spec, "goes where another output of the request goes; expected places in "
                                 "shared memory that do not overlap", INVALID)
    asked.home = place.home
    asked.offset = place.offset
    asked.size = place.size
    return check_room(accepted, target, &accepted.outputs[target.outputs[index]], asked)


cdef int check_room(const signature* accepted, request* target, const tensor_spec* spec,
                    const delivery* asked) noexcept nogil:
    """Refuse what cannot fit before it is run, where that is known; else it is found out when it is written."""
    cdef int64_t rows, size
    if spec.datatype == DT_BYTES or spec.inner_elements < 0:
        return 0
    if accepted.max_batch_size > 0:
        rows = target.rows
    else:
        rows = spec.dims[0] if spec.rank > 0 else 1
    if rows < 0 or multiply_overflows(rows, spec.inner_elements, &size):
        return 0
    if multiply_overflows(size, datatype_size(spec.datatype), &size) or size <= asked.size:
        return 0
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "output '%s' has %ld bytes; its place in shared memory has %ld",
             spec.name, <long> size, <long> asked.size)
    return refuse(target, INVALID)


# ---- as classes


cdef int bind_classes(const signature* accepted, request* target, int32_t index) noexcept nogil:
    """Read how many classes of an output are asked for."""
    cdef const tensor_spec* spec = &accepted.core.outputs[target.outputs[index]]
    cdef const parameter_view* given = find_parameter(&target.view, OWNER_FIRST_OUTPUT - index, "classification", 14)
    if given == NULL:
        return 0
    if given.kind != PARAMETER_INT64 or given.value.as_int64 <= 0:
        return refuse_output(target, spec, "has a classification that is no int64_param of at least 1", INVALID)
    if target.deliveries[index].home != NULL:
        return refuse_output(target, spec, "cannot have both classification and shared memory", INVALID)
    if not can_classify(spec.datatype):
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "output '%s' is %s, of which there is no classification",
                 spec.name, datatype_name(spec.datatype))
        return refuse(target, INVALID)
    target.deliveries[index].classes = given.value.as_int64
    return 0
