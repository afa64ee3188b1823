"""Binds controls and states of a request whose turn has come to memory of its sequence and of the rules."""

from libc.stdint cimport int32_t

from kernels.request cimport bound_tensor, request, sequence_turn
from kernels.sequence_rules cimport CONTROL_END, CONTROL_ID, CONTROL_START, control_rule, sequence_rules, state_rule
from kernels.sequences cimport sequence, state_value


cdef void bind_turn(const sequence_rules* rules, sequence* home, request* member) noexcept nogil:
    """Give a request the inputs that are the server's: they stay where they are until it leaves."""
    cdef const control_rule* control
    cdef int32_t index
    if member.turn.is_fresh:
        home.has_state = False
    for index in range(rules.n_controls):
        control = &rules.controls[index]
        if control.kind == CONTROL_ID:
            bind_id(control, home, &member.inputs[control.input])
        else:
            member.inputs[control.input] = bound_tensor(
                &control.values[says_true(control.kind, &member.turn)][0], control.size, &control.shape[0], NULL, 0)
    for index in range(rules.n_states):
        bind_state(&rules.states[index], home, index, &member.inputs[rules.states[index].input])


cdef bint says_true(int kind, const sequence_turn* turn) noexcept nogil:
    if kind == CONTROL_START:
        return turn.starts
    if kind == CONTROL_END:
        return turn.ends
    return True


cdef void bind_id(const control_rule* control, const sequence* home, bound_tensor* bound) noexcept nogil:
    if home.text != NULL:
        bound[0] = bound_tensor(<const unsigned char*> home.text, home.text_size, &control.shape[0], NULL, 0)
    else:
        # The low bytes come first, and the rest is known to be empty.
        bound[0] = bound_tensor(<const unsigned char*> &home.number, control.size, &control.shape[0], NULL, 0)


cdef void bind_state(const state_rule* rule, const sequence* home, int32_t index, bound_tensor* bound) noexcept nogil:
    cdef const state_value* value = &home.values[2 * index + home.current]
    if home.has_state:
        bound[0] = bound_tensor(<const unsigned char*> value.data, value.size, &value.shape[0], NULL, 0)
    else:
        bound[0] = bound_tensor(rule.initial, rule.initial_size, &rule.initial_shape[0], NULL, 0)
