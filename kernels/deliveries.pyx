"""Carries out what a request's deliveries ask for, on its rows of the outputs, before the reply is encoded."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf

from kernels.classification cimport append_classes, text_buffer
from kernels.datatype cimport DT_BYTES, datatype_size
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.interface cimport label_list
from kernels.refusals cimport refuse, refuse_memory, refuse_output
from kernels.request cimport delivery, request
from kernels.response cimport output_view
from kernels.session cimport tensor_spec
from kernels.shared_memory cimport is_on_gpu, write_region
from kernels.signature cimport signature
from kernels.status cimport INVALID
from kernels.wire cimport bytes_view

cdef const char* UNREACHABLE = (b"cannot be written to its shared memory object, which has become shorter or for which "
                                b"there is no memory")
cdef const char* UNREACHABLE_ON_GPU = b"cannot be written to its CUDA shared memory region"


cdef int deliver_outputs(const signature* accepted, request* member, output_view* views) noexcept nogil:
    """Deliver every output that asks for it, and describe in `views` what the reply says of it instead.

    0, or -1 with the request's own error set: those that run with it are not concerned.
    """
    cdef text_buffer classes = text_buffer(member.classes, 0, member.classes_capacity)
    cdef int32_t index
    cdef int failed = 0
    for index in range(member.n_outputs):
        if failed == 0 and member.deliveries[index].home != NULL:
            failed = write_output(accepted, member, index, &views[index])
        elif failed == 0 and member.deliveries[index].classes > 0:
            failed = write_classes(accepted, member, index, &views[index], &classes)
    member.classes = classes.data
    member.classes_capacity = classes.capacity
    for index in range(member.n_outputs):
        if failed == 0 and member.deliveries[index].classes > 0:
            # Only now does the buffer no longer move.
            views[index].content.data = classes.data + member.deliveries[index].offset
    return failed


cdef int write_output(const signature* accepted, request* member, int32_t index, output_view* view) noexcept nogil:
    """Put an output where the request wants it; the reply then says where it is and how large."""
    cdef const delivery* asked = &member.deliveries[index]
    cdef const tensor_spec* spec = &accepted.core.outputs[member.outputs[index]]
    if <int64_t> view.content.size > asked.size:
        snprintf(member.error.text, FAILURE_TEXT_BYTES, "output '%s' has %zu bytes; its place in shared memory has %ld",
                 spec.name, view.content.size, <long> asked.size)
        return refuse(member, INVALID)
    # A run may have written it there itself.
    if view.content.data != place_on_gpu(asked) and write_region(
            asked.home, asked.offset, view.content.data, view.content.size) != 0:
        return refuse_output(member, spec, UNREACHABLE_ON_GPU if is_on_gpu(asked.home) else UNREACHABLE, INVALID)
    view.region = bytes_view(<const uint8_t*> asked.home.name, asked.home.name_size)
    view.region_offset = asked.offset
    view.region_bytes = view.content.size
    view.content.size = 0
    return 0


cdef const uint8_t* place_on_gpu(const delivery* asked) noexcept nogil:
    """Where an output goes in a GPU's memory; NULL for system shared memory."""
    return asked.home.base + asked.offset if is_on_gpu(asked.home) else NULL


cdef int write_classes(const signature* accepted, request* member, int32_t index, output_view* view,
                       text_buffer* out) noexcept nogil:
    """Replace the elements of each row by its classes; without batches the whole output is one row."""
    cdef delivery* asked = &member.deliveries[index]
    cdef const label_list* labels = NULL
    cdef int64_t* shape = <int64_t*> view.shape
    cdef int64_t rows = shape[0] if accepted.max_batch_size > 0 else 1
    cdef size_t start = out.size, width = datatype_size(view.datatype)
    cdef int64_t elements = <int64_t> (view.content.size // width) // rows, row
    if accepted.labels != NULL:
        labels = &accepted.labels[member.outputs[index]]
    for row in range(rows):
        if append_classes(view.content.data + <size_t> (row * elements) * width, elements, view.datatype, asked.classes,
                          labels, out) != 0:
            return refuse_memory(member)
    asked.offset = <int64_t> start  # of the text, until the buffer stands still
    view.content.size = out.size - start
    view.datatype = DT_BYTES
    view.rank = 0
    if accepted.max_batch_size > 0:
        view.rank = 1
    shape[view.rank] = min(asked.classes, elements)
    view.rank += 1
    return 0
