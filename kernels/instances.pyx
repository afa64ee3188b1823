"""Checks and starts the sessions that are the instances of one model, each with a thread of its own."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc

from kernels.batcher cimport open_lanes
from kernels.failure cimport failure
from kernels.pipeline cimport warm_up
from kernels.placement cimport can_run_zeros
from kernels.session cimport Session, session_core
from kernels.status cimport EXHAUSTED, OK

from kernels.runtime import decode_error
from kernels.session import DeviceError

cdef enum:
    MAX_BUFFER_SETS = 16


def check_instances(sessions, instance_count, buffer_sets):
    """Raise ValueError unless the sessions and how they are to be run go together."""
    if not sessions or not all(isinstance(session, Session) for session in sessions):
        raise ValueError("expected a Session, or at least one in a sequence")
    if not 0 <= buffer_sets <= MAX_BUFFER_SETS:
        raise ValueError(f"buffer_sets is {buffer_sets}; expected 0 to {MAX_BUFFER_SETS}")
    if (buffer_sets == 0 and len(sessions) > 1) or (buffer_sets > 0 and instance_count > 1):
        raise ValueError("instances are sessions where these have lanes (buffer_sets > 0), else a count")
    if any((session.inputs, session.outputs) != (sessions[0].inputs, sessions[0].outputs) for session in sessions):
        raise ValueError("the sessions are not of one model: their inputs or outputs differ")


cdef int start_lanes(batcher* queue, tuple sessions, int32_t buffer_sets) except -1:
    """Give each session its lane and run the largest batch once on all their buffers."""
    cdef session_core** cores = <session_core**> malloc(len(sessions) * sizeof(session_core*))
    cdef int32_t index
    cdef int failed
    if cores == NULL:
        raise MemoryError
    for index in range(len(sessions)):
        cores[index] = &(<Session> sessions[index]).core
    failed = open_lanes(queue, cores, len(sessions), buffer_sets)
    free(cores)
    if failed != 0:
        raise MemoryError("no memory or no thread for a session's lane")
    if can_run_zeros(&queue.accepted):
        for index in range(queue.n_pipelines):
            run_largest(queue, index, sessions[index].device)
    return 0


cdef int run_largest(batcher* queue, int32_t index, str device) except -1:
    """Run a session's largest batch; DeviceError when its device has no memory for that."""
    cdef failure error
    cdef int failed
    error.code = OK
    with nogil:
        failed = warm_up(&queue.pipelines[index], &error)
    # Zeros may be nothing that the model takes: only what they say about memory is of interest.
    if failed != 0 and error.code == EXHAUSTED:
        raise DeviceError(f"a batch of {queue.accepted.max_batch_size} rows does not fit on {device}: "
                          f"{decode_error(error.text)}")
    return 0
