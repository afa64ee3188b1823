"""Admits a step's request to its sequence, at the version that has it.

The parameters of a sequence are those of the ensemble's request, which every step knows. What they say is read and refused
as of a request that goes to the model itself.
"""

from kernels.batcher cimport batcher, hold_batcher, settle_request
from kernels.batcher_counts cimport count_refusal
from kernels.elders cimport elder_list, find_elder
from kernels.ensemble_plan cimport plan_step
from kernels.queueing cimport admit_request
from kernels.request cimport request
from kernels.sequence_gate cimport sequence_gate
from kernels.sequence_id cimport read_turn
from kernels.signature cimport bind_request
from kernels.sync cimport pointer_load, section_enter, section_leave


cdef batcher* admit_turn(sequence_gate* gate, const plan_step* planned, request* asked) noexcept nogil:
    """Queue a filled request, or settle it as refused.

    Returns the version that the request goes on with instead of the planned one, held for the caller, or NULL.
    """
    cdef batcher* elder
    cdef int phase
    if pointer_load(gate.elders) == NULL:
        admit_to(planned.target, asked)
        return NULL
    phase = section_enter(gate.sections)
    elder = find_elder(<const elder_list*> pointer_load(gate.elders), planned.target, planned.version, asked)
    if elder != NULL:
        hold_batcher(elder)
    section_leave(gate.sections, phase)
    admit_to(planned.target if elder == NULL else elder, asked)
    return elder


cdef void admit_to(batcher* target, request* asked) noexcept nogil:
    if (bind_request(&target.accepted, asked) == 0
            and read_turn(target.accepted.sequences, target.sequences.seed, asked) == 0):
        admit_request(target, asked)
        return
    count_refusal(target, asked)
    settle_request(asked)
