"""Reads which sequence a request belongs to and where in it, and checks that the model can be told its id."""

from libc.stdint cimport INT32_MAX, INT32_MIN, UINT32_MAX, int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from kernels.codec cimport (
    OWNER_REQUEST, PARAMETER_BOOL, PARAMETER_INT64, PARAMETER_STRING, PARAMETER_UINT64, bytes_view, find_parameter,
    parameter_view,
)
from kernels.datatype cimport DT_BYTES, DT_INT32, DT_UINT32, datatype_name
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport refuse
from kernels.request cimport request, sequence_turn
from kernels.sequence_rules cimport sequence_rules
from kernels.status cimport INVALID

cdef const char* ID = b"sequence_id"
cdef const char* START = b"sequence_start"
cdef const char* END = b"sequence_end"


cdef int read_turn(const sequence_rules* rules, uint64_t seed, request* target) noexcept nogil:
    """Fill in `target.turn`, but for its home. 0, or -1 with `target.error` set.

    Without rules, NULL, any id will do.
    """
    cdef sequence_turn* turn = &target.turn
    if read_id(target, turn) != 0 or read_flag(target, START, &turn.starts) != 0:
        return -1
    if read_flag(target, END, &turn.ends) != 0 or check_id(rules, target, turn) != 0:
        return -1
    turn.hash = hash_id(turn, seed)
    turn.home = NULL
    return 0


cdef int read_id(request* target, sequence_turn* turn) noexcept nogil:
    cdef const parameter_view* found = find_parameter(&target.view, OWNER_REQUEST, ID, strlen(ID))
    turn.text = bytes_view(NULL, 0)
    turn.number = 0
    if found != NULL and found.kind == PARAMETER_STRING:
        if found.value.as_string.size > 0:
            turn.text = found.value.as_string
    elif found != NULL and found.kind == PARAMETER_INT64:
        turn.number = <uint64_t> found.value.as_int64
    elif found != NULL and found.kind == PARAMETER_UINT64:
        turn.number = found.value.as_uint64
    elif found != NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' is neither an int64 nor a string", ID)
        return refuse(target, INVALID)
    if turn.text.data == NULL and turn.number == 0:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "the request names no sequence; expected parameter '%s', a number other than 0 or a text, since model "
                 "'%.*s' keeps sequences", ID, <int> min(target.view.model_name.size, <size_t> MAX_ID_BYTES),
                 <const char*> target.view.model_name.data)
        return refuse(target, INVALID)
    if turn.text.size > MAX_ID_BYTES:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' has %zu bytes; expected at most %d", ID,
                 turn.text.size, <int> MAX_ID_BYTES)
        return refuse(target, INVALID)
    return 0


cdef int read_flag(request* target, const char* name, bint* flag) noexcept nogil:
    cdef const parameter_view* found = find_parameter(&target.view, OWNER_REQUEST, name, strlen(name))
    flag[0] = False
    if found == NULL:
        return 0
    if found.kind != PARAMETER_BOOL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' is not a bool", name)
        return refuse(target, INVALID)
    flag[0] = found.value.as_bool
    return 0


cdef int check_id(const sequence_rules* rules, request* target, const sequence_turn* turn) noexcept nogil:
    """Refuse an id that the input which is to carry it cannot hold: cut, it might be another sequence's."""
    cdef bint fits = True
    cdef int64_t number = <int64_t> turn.number
    cdef char shown[SHOWN_ID_BYTES]
    if rules == NULL or rules.id_datatype == 0:
        return 0
    if (rules.id_datatype == DT_BYTES) != (turn.text.data != NULL):
        fits = False
    elif rules.id_datatype == DT_INT32:
        fits = INT32_MIN <= number <= INT32_MAX
    elif rules.id_datatype == DT_UINT32:
        fits = turn.number <= UINT32_MAX
    if fits:
        return 0
    write_id(turn, shown)
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "sequence_id %s cannot be given to the model, which takes ids as %s",
             shown, datatype_name(rules.id_datatype))
    return refuse(target, INVALID)


cdef void write_id(const sequence_turn* turn, char* text) noexcept nogil:
    """Write an id as an error shows it, into SHOWN_ID_BYTES bytes: a text in quotes."""
    if turn.text.data == NULL:
        snprintf(text, SHOWN_ID_BYTES, "%lu", <unsigned long> turn.number)
    else:
        snprintf(text, SHOWN_ID_BYTES, "'%.*s'", <int> turn.text.size, <const char*> turn.text.data)


# ---- hashing: clients choose ids, so that places must not be known to them


cdef uint64_t hash_id(const sequence_turn* turn, uint64_t seed) noexcept nogil:
    cdef uint64_t value = mix(seed ^ turn.number)
    cdef uint64_t word
    cdef size_t position = 0
    while position < turn.text.size:
        word = 0
        memcpy(&word, turn.text.data + position, min(turn.text.size - position, <size_t> 8))
        value = mix(value ^ word) + seed
        position += 8
    return mix(value ^ turn.text.size)


cdef uint64_t mix(uint64_t value) noexcept nogil:
    """The finalizer of SplitMix64: every bit of the value bears on every bit of the result."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL
    return value ^ (value >> 31)
