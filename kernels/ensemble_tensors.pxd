"""A step's request: views of the tensors that it reads, where they lie."""

from kernels.ensemble_run cimport ensemble_run, run_step
from kernels.request cimport request


cdef int fill_step(ensemble_run* run, run_step* step, request* asked) noexcept nogil
