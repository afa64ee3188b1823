"""Runs a model on zeros, for what a run takes and not for what it gives: its time, its memory, a recording of it.

Only models whose inputs are numbers of fixed size but for the batch can be run so (kernels.placement.can_run_zeros).
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from kernels.buffers cimport reserve, trim_buffers
from kernels.datatype cimport datatype_size
from kernels.failure cimport failure
from kernels.instance cimport begin_batch, bind_outputs, end_phase, instance, release_tensors, run_prepared
from kernels.session cimport MAX_RANK, bind_tensor, session_core, tensor_spec
from kernels.sync cimport monotonic_ns


cdef int run_zeros(instance* used, failure* error) noexcept nogil:
    """Run the largest batch for its time alone."""
    cdef int failed = prepare_zeros(used, used.accepted.max_batch_size, error)
    if failed == 0:
        failed = run_prepared(used, error)
    finish_zeros(used)
    return failed


cdef int prepare_zeros(instance* used, int64_t rows, failure* error) noexcept nogil:
    """Make a batch of so many rows, 0 of a model without batches. 0, or -1; finish_zeros must follow either way."""
    cdef int32_t index
    cdef int failed = 0
    begin_batch(used, rows, monotonic_ns())
    for index in range(used.core.n_inputs):
        if failed == 0:
            failed = fill_zeros(used, index, error)
    if failed == 0:
        failed = bind_outputs(used, NULL, rows, error)
    used.gather_ns = end_phase(used)
    return failed


cdef int fill_zeros(instance* used, int32_t index, failure* error) noexcept nogil:
    cdef session_core* core = used.core
    cdef const tensor_spec* spec = &core.inputs[index]
    cdef int64_t shape[MAX_RANK]
    cdef size_t size
    memcpy(shape, spec.dims, spec.rank * sizeof(int64_t))
    if used.accepted.max_batch_size > 0:
        shape[0] = used.recorded.rows if used.recorded != NULL else used.rows
    size = <size_t> (spec.inner_elements * (shape[0] if spec.rank > 0 else 1)) * datatype_size(spec.datatype)
    if reserve(&core.place, &used.input_buffers[index], &used.input_capacities[index], size, error) != 0:
        return -1
    memset(used.input_buffers[index], 0, size)
    if used.recorded != NULL:
        return 0
    return bind_tensor(core, spec, used.input_buffers[index], size, shape, &used.inputs[index], error)


cdef void finish_zeros(instance* used) noexcept nogil:
    """Let go of the tensors of a run whose outputs nobody takes."""
    release_tensors(used)
    trim_buffers(used)
