"""Decides which tensors of a batch of one a session on a GPU can use where they lie, in its own GPU's memory.

What it cannot is copied: inputs of other GPUs, of several requests, and BOOL, whose bytes must be checked, from the
region into the batch's buffer; outputs from there to their region, as those in system shared memory are.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdio cimport snprintf

from kernels.datatype cimport DT_BOOL, DT_BYTES
from kernels.device cimport device
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.request cimport bound_tensor, delivery, request
from kernels.session cimport tensor_spec
from kernels.shared_memory cimport is_on_gpu, read_region
from kernels.shared_place cimport places_overlap, shared_place
from kernels.status cimport INVALID

cdef enum:
    # How CUDA's own allocations lie: kernels that read several elements at a time may rely on it.
    GPU_ALIGNMENT = 256


cdef bint stays_on_gpu(const tensor_spec* spec, const bound_tensor* given) noexcept nogil:
    """Tell whether an input is left on its GPU until its batch is gathered: strings are not, they must be looked at."""
    return given.home != NULL and is_on_gpu(given.home) and spec.datatype != DT_BYTES


cdef void* find_input_place(const device* place, const tensor_spec* spec, const bound_tensor* given) noexcept nogil:
    """The place of an input that the session can read where it is; NULL for one that is to be fetched."""
    cdef uint8_t* found
    if not stays_on_gpu(spec, given) or given.home.gpu != place.gpu or spec.datatype == DT_BOOL or given.size == 0:
        return NULL
    found = given.home.base + given.offset
    return found if <size_t> found % GPU_ALIGNMENT == 0 else NULL


cdef int fetch_input(const tensor_spec* spec, const bound_tensor* given, uint8_t* target, failure* error) noexcept nogil:
    """Copy an input that stayed on its GPU. 0, or -1 with `error` set."""
    cdef size_t place
    if read_region(given.home, given.offset, target, given.size) != 0:
        error.code = INVALID
        snprintf(error.text, FAILURE_TEXT_BYTES, "input '%s' cannot be read from CUDA shared memory region '%s'",
                 spec.name, given.home.name)
        return -1
    if spec.datatype == DT_BOOL:
        for place in range(given.size):
            target[place] = target[place] != 0
    return 0


cdef void* find_output_place(const device* place, const request* alone, int32_t output, int32_t n_inputs,
                             size_t size) noexcept nogil:
    """Where the only request of a batch wants an output, if the session can write it there; NULL for a copy."""
    cdef const delivery* asked = find_delivery(alone, output)
    cdef uint8_t* found
    if asked == NULL or asked.home == NULL or not is_on_gpu(asked.home) or asked.home.gpu != place.gpu:
        return NULL
    found = asked.home.base + asked.offset
    if size == 0 or <size_t> asked.size < size or <size_t> found % GPU_ALIGNMENT != 0:
        return NULL
    return NULL if overlaps_input(alone, asked, n_inputs) else <void*> found


cdef const delivery* find_delivery(const request* alone, int32_t output) noexcept nogil:
    cdef int32_t index
    for index in range(alone.n_outputs):
        if alone.outputs[index] == output:
            return &alone.deliveries[index]
    return NULL


cdef bint overlaps_input(const request* alone, const delivery* asked, int32_t n_inputs) noexcept nogil:
    """Tell whether an output goes where an input of its request lies, which the run may still have to read."""
    cdef shared_place goal = shared_place(asked.home, asked.offset, asked.size), given
    cdef int32_t index
    for index in range(n_inputs):
        given = shared_place(alone.inputs[index].home, alone.inputs[index].offset, <long> alone.inputs[index].size)
        if places_overlap(&goal, &given):
            return True
    return False
