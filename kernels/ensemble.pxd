"""An ensemble as its configuration has it: the tensors that its callers see, and its steps by the names of models."""

from libc.stdint cimport int32_t

from kernels.interface cimport Labels
from kernels.sequence_gate cimport sequence_gate
from kernels.session cimport session_core, tensor_spec
from kernels.signature cimport signature


cdef struct ensemble_core:       # what runs of it need to know of their sizes, and those that are over
    int32_t n_steps
    int32_t n_inputs             # of all steps
    int32_t n_outputs            # of all steps
    sequence_gate* gate          # of the engine that serves it
    bint keeps_replies           # asks for the response cache, whether the engine has one or not
    void* idle_runs              # ensemble_run*, linked by `next`; under the lock of the ensemble's batcher
    int32_t n_idle
    void (*free_run)(void* unused) noexcept nogil


cdef class Ensemble:
    cdef session_core seen       # inputs and outputs as of a session, which it is none
    cdef ensemble_core core
    cdef Labels labels           # of its outputs; None without any
    cdef object _keep            # the bytes objects behind every name pointer
    cdef readonly tuple inputs
    cdef readonly tuple outputs
    cdef readonly tuple steps    # of EnsembleStep; each comes after those whose tensors it reads

    cdef void describe(self, signature* accepted) noexcept
    cdef tensor_spec* describe_tensors(self, tuple specs, object optional) except NULL
