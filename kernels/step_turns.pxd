"""A step's request on its way to a model that keeps sequences."""

from kernels.batcher cimport batcher
from kernels.ensemble_plan cimport plan_step
from kernels.request cimport request
from kernels.sequence_gate cimport sequence_gate

cdef batcher* admit_turn(sequence_gate* gate, const plan_step* planned, request* asked) noexcept nogil
