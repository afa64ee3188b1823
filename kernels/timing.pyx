"""Names what is known when a reply is encoded: how long its request waited, and the phases of its batch so far."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport strlen

from kernels.response cimport response_parameter
from kernels.wire cimport bytes_view


cdef int32_t describe_timing(int64_t queue_ns, int64_t gather_ns, int64_t run_ns, int64_t rows,
                             response_parameter* timing) noexcept nogil:
    """Write TIMING_PARAMETERS parameters; return their number."""
    set_parameter(&timing[0], b"server_timing.queue_ns", queue_ns)
    set_parameter(&timing[1], b"server_timing.compute_input_ns", gather_ns)
    set_parameter(&timing[2], b"server_timing.compute_infer_ns", run_ns)
    set_parameter(&timing[3], b"server_timing.batch_size", rows)
    return TIMING_PARAMETERS


cdef void set_parameter(response_parameter* target, const char* name, int64_t value) noexcept nogil:
    target.name = bytes_view(<const uint8_t*> name, strlen(name))
    # An int64 below 0 would take ten bytes; a clock's difference is none.
    target.value = max(value, <int64_t> 0)
