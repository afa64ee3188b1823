"""Copies each row of a run's state outputs to the request's sequence, where it becomes the state if the request succeeds."""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kernels.codec cimport bytes_view
from kernels.datatype cimport DT_BYTES
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.interface cimport fits
from kernels.request cimport request, reserve
from kernels.sequence_rules cimport sequence_rules, state_rule
from kernels.sequences cimport sequence, state_value
from kernels.session cimport tensor_data
from kernels.signature cimport signature
from kernels.status cimport EXHAUSTED, INTERNAL


cdef int keep_states(const signature* accepted, const tensor_data* results, size_t** offsets, request* batch,
                     failure* error) noexcept nogil:
    """Take what a run gave, before it is released; requests of sequences have one row each. 0, or -1 with `error` set.

    Parameters
    ----------
    results, offsets
        The run's outputs, in the model's order; for strings, where each element starts.
    """
    cdef const sequence_rules* rules = accepted.sequences
    cdef const state_rule* rule
    cdef sequence* home
    cdef int64_t row = 0
    cdef int32_t index
    for index in range(rules.n_states):
        if check_shape(accepted, &rules.states[index], &results[rules.states[index].output], error) != 0:
            return -1
    while batch != NULL:
        home = <sequence*> batch.turn.home
        for index in range(rules.n_states):
            rule = &rules.states[index]
            if keep_state(&home.values[2 * index + (home.current ^ 1)], &results[rule.output],
                          find_row(accepted, rule, results, offsets, row), accepted.max_batch_size > 0, error) != 0:
                return -1
        row += 1
        batch = batch.next
    return 0


cdef int check_shape(const signature* accepted, const state_rule* rule, const tensor_data* result,
                     failure* error) noexcept nogil:
    if fits(&accepted.core.inputs[rule.input], result.shape, result.rank):
        return 0
    error.code = INTERNAL
    snprintf(error.text, FAILURE_TEXT_BYTES, "state output '%s' has a shape that input '%s' does not take",
             accepted.core.outputs[rule.output].name, accepted.core.inputs[rule.input].name)
    return -1


cdef bytes_view find_row(const signature* accepted, const state_rule* rule, const tensor_data* results,
                         size_t** offsets, int64_t row) noexcept nogil:
    """Where one row of an output lies; without batches, the whole of it."""
    cdef const tensor_data* result = &results[rule.output]
    cdef int64_t rows = result.shape[0] if accepted.max_batch_size > 0 else 1
    cdef int64_t inner = result.elements // rows
    cdef size_t start, end
    if accepted.core.outputs[rule.output].datatype == DT_BYTES:
        start = offsets[rule.output][row * inner]
        end = offsets[rule.output][(row + 1) * inner]
    else:
        start = <size_t> row * (result.size // <size_t> rows)
        end = start + result.size // <size_t> rows
    return bytes_view(result.data + start, end - start)


cdef int keep_state(state_value* kept, const tensor_data* result, bytes_view content, bint is_batched,
                    failure* error) noexcept nogil:
    if reserve(&kept.data, &kept.capacity, content.size) != 0:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a state of %zu bytes", content.size)
        return -1
    if content.size > 0:
        memcpy(kept.data, content.data, content.size)
    kept.size = content.size
    memcpy(kept.shape, result.shape, result.rank * sizeof(int64_t))
    if is_batched:
        kept.shape[0] = 1
    return 0
