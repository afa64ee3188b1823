"""How far a run of an ensemble is: which of its steps may begin, and what a step's end means for the others."""

from kernels.ensemble_run cimport ensemble_run, run_step


cdef run_step* choose_steps(ensemble_run* run) noexcept nogil
cdef run_step* end_step(ensemble_run* run, run_step* step, bint* stops) noexcept nogil
cdef void release_sources(ensemble_run* run, const run_step* step) noexcept nogil
