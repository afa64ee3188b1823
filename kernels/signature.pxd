"""What a model version accepts: checks a decoded request against it and binds its tensors to the model's inputs."""

from libc.stdint cimport int64_t

from kernels.interface cimport label_list
from kernels.request cimport request
from kernels.sequence_rules cimport sequence_rules
from kernels.session cimport session_core, tensor_spec
from kernels.shared_memory cimport region_table
from kernels.uneven_rules cimport uneven_rules


cdef struct signature:
    session_core* core
    int64_t max_batch_size    # 0: the first dimension is no batch, one request a run
    const tensor_spec* inputs  # as callers give them: the core's own unless they are reshaped
    const tensor_spec* outputs  # as callers get them, the same
    const tensor_spec* bound   # inputs as requests are bound: the core's own, but for ragged ones
    const tensor_spec* made    # reshaped outputs as the model must make them; NULL without any
    const label_list* labels   # of each output, for classes; NULL without any
    bint reads_inputs          # by ensembles' steps, or to pad them: none stays in a GPU's memory
    region_table* regions      # the shared memory that requests may name
    int64_t max_shared_bytes   # that one request may have copied out of it
    const sequence_rules* sequences  # NULL for a model that keeps none
    const uneven_rules* uneven  # NULL where all requests of a batch have one shape


cdef int bind_request(const signature* accepted, request* target) noexcept nogil
cdef bint can_merge(const signature* accepted, const request* first, const request* other) noexcept nogil
