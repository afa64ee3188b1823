"""How a model version's queue and batches are to behave, as Python says it."""

from kernels.batcher cimport batcher

cdef int apply_options(batcher* target, options) except -1
