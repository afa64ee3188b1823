"""Runs a session again and again on the same tensors, with nothing around it: for measurements only.

What a run is given lies where batches of the engine lie, pinned for a GPU, so that a run copies to the device and back
as one of the engine's does.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from kernels.buffers cimport close_instance, open_instance
from kernels.failure cimport failure
from kernels.instance cimport finish_zeros, instance, prepare_zeros, run_prepared, version_name
from kernels.placement cimport can_run_zeros
from kernels.session cimport Session
from kernels.signature cimport signature
from kernels.status cimport OK
from kernels.sync cimport monotonic_ns

from kernels.runtime import decode_error


def drive_session(Session session not None, int64_t rows, int64_t runs):
    """Run batches of zeros on this thread, without the GIL; return what they took in nanoseconds.

    Parameters
    ----------
    rows : int
        Of a batch; 0 for a model without batches.

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
    cdef int64_t started
    cdef int failed
    accepted.core = &session.core
    accepted.max_batch_size = rows
    if rows < 0 or runs < 1 or not can_run_zeros(&accepted):
        raise ValueError("rows must be at least 0, runs at least 1, and the model's inputs numbers of fixed size")
    memset(&used, 0, sizeof(instance))
    memset(&unnamed, 0, sizeof(version_name))
    error.code = OK
    with nogil:
        failed = open_instance(&used, &accepted, accepted.core, &unnamed)
        if failed == 0:
            failed = prepare_zeros(&used, &error)
        started = monotonic_ns()
        if failed == 0:
            failed = run_often(&used, runs, &error)
        started = monotonic_ns() - started
        finish_zeros(&used)
        close_instance(&used)
    if failed != 0:
        raise RuntimeError(decode_error(error.text) if error.code != OK else "no memory")
    return started


cdef int run_often(instance* used, int64_t runs, failure* error) noexcept nogil:
    cdef int64_t done
    for done in range(runs):
        if run_prepared(used, error) != 0:
            return -1
    return 0
