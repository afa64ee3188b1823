"""Runs a session again and again on the same tensors, with nothing around it: for measurements only.

What a run is given lies where batches of the engine lie, pinned for a GPU, so that a run copies to the device and back
as one of the engine's does.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from kernels.buffers cimport close_instance, open_instance
from kernels.failure cimport failure
from kernels.instance cimport instance, run_prepared, version_name
from kernels.ort cimport *
from kernels.placement cimport can_run_zeros
from kernels.runtime cimport check_status
from kernels.session cimport Session, session_core
from kernels.signature cimport signature
from kernels.status cimport OK
from kernels.sync cimport monotonic_ns
from kernels.zeros cimport finish_zeros, prepare_zeros

from kernels.runtime import decode_error


def drive_session(Session session not None, int64_t rows, int64_t runs, *, bint binds=False):
    """Run batches of zeros on this thread, without the GIL; return what they took in nanoseconds.

    Parameters
    ----------
    rows : int
        Of a batch; 0 for a model without batches. One that the session has recorded is replayed.
    binds : bool
        Whether inputs and outputs are bound by an IOBinding, which copies an input when it is bound, instead of given
        to the run, which copies it as the first thing on its stream.

    Raises
    ------
    ValueError
        Zeros cannot be made for the model's inputs.
    RuntimeError
        A run failed; with ONNX Runtime's text.
    """
    cdef signature accepted
    cdef version_name unnamed
    cdef instance used
    cdef failure error
    cdef int64_t spent_ns = 0
    cdef int failed
    memset(&accepted, 0, sizeof(signature))
    accepted.core = &session.core
    accepted.max_batch_size = rows
    if rows < 0 or runs < 1 or not can_run_zeros(&accepted):
        raise ValueError("rows must be at least 0, runs at least 1, and the model's inputs numbers of fixed size")
    if binds and session.recorded_sizes:
        raise ValueError("a session that records its runs has its tensors at places of its own")
    memset(&used, 0, sizeof(instance))
    memset(&unnamed, 0, sizeof(version_name))
    error.code = OK
    with nogil:
        failed = open_instance(&used, &accepted, accepted.core, &unnamed)
        if failed == 0:
            failed = prepare_zeros(&used, rows, &error)
        if failed == 0:
            failed = run_bound(&used, runs, &spent_ns, &error) if binds else run_often(&used, runs, &spent_ns, &error)
        finish_zeros(&used)
        close_instance(&used)
    if failed != 0:
        raise RuntimeError(decode_error(error.text) if error.code != OK else "no memory")
    return spent_ns


cdef int run_often(instance* used, int64_t runs, int64_t* spent_ns, failure* error) noexcept nogil:
    cdef int64_t started_ns = monotonic_ns(), done
    for done in range(runs):
        if run_prepared(used, error) != 0:
            return -1
    spent_ns[0] = monotonic_ns() - started_ns
    return 0


cdef int run_bound(instance* used, int64_t runs, int64_t* spent_ns, failure* error) noexcept nogil:
    cdef session_core* core = used.core
    cdef OrtIoBinding* binding = NULL
    cdef int64_t started_ns, done
    cdef int failed = check_status(core.runtime.api, ort_CreateIoBinding(core.runtime.api, core.handle, &binding), error)
    if failed == 0:
        failed = bind_given_outputs(used, binding, error)
    started_ns = monotonic_ns()
    for done in range(runs):
        if failed == 0:
            failed = bind_and_run(used, binding, error)
    spent_ns[0] = monotonic_ns() - started_ns
    if binding != NULL:
        ort_ReleaseIoBinding(core.runtime.api, binding)
    return failed


cdef int bind_given_outputs(instance* used, OrtIoBinding* binding, failure* error) noexcept nogil:
    """Bind the outputs to where the instance wants them."""
    cdef session_core* core = used.core
    cdef int32_t index
    for index in range(core.n_outputs):
        if used.outputs[index] != NULL and check_status(core.runtime.api, ort_BindOutput(
                core.runtime.api, binding, core.output_names[index], used.outputs[index]), error) != 0:
            return -1
    return 0


cdef int bind_and_run(instance* used, OrtIoBinding* binding, failure* error) noexcept nogil:
    """Bind the inputs anew, as every batch would have to, and run."""
    cdef session_core* core = used.core
    cdef int32_t index
    for index in range(core.n_inputs):
        if check_status(core.runtime.api, ort_BindInput(
                core.runtime.api, binding, core.input_names[index], used.inputs[index]), error) != 0:
            return -1
    return check_status(core.runtime.api, ort_RunWithBinding(core.runtime.api, core.handle, NULL, binding), error)
