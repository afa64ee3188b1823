"""The end of an ensemble's run: its caller's reply, from the outputs of several steps."""

from kernels.ensemble_run cimport ensemble_run


cdef int encode_results(ensemble_run* run) noexcept nogil
