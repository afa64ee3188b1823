"""The memory of runs: one block of tables each, kept by the ensemble and used again."""

from kernels.ensemble_plan cimport ensemble_plan
from kernels.ensemble_run cimport ensemble_run
from kernels.request cimport request


cdef ensemble_run* open_run(ensemble_plan* plan, request* client) noexcept nogil
cdef void end_run(ensemble_run* over) noexcept nogil
