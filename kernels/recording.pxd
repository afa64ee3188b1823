"""Runs of fixed batch sizes that a session's device records and replays: what they need, and how a batch takes part."""

from libc.stdint cimport int64_t, uint8_t

from kernels.failure cimport failure
from kernels.ort cimport OrtValue
from kernels.session cimport recording, session_core


cdef int open_recordings(session_core* core, tuple sizes) except -1
cdef void close_recordings(session_core* core) noexcept nogil
cdef const recording* find_recording(const session_core* core, int64_t rows) noexcept nogil
cdef int run_recording(session_core* core, const recording* chosen, uint8_t** inputs, uint8_t** outputs, int64_t rows,
                       failure* error) noexcept nogil
cdef tuple list_places(session_core* core, const recording* chosen)
