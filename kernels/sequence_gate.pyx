"""Keeps a line for each sequence that has requests on their way through an ensemble."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from kernels.request cimport sequence_turn
from kernels.sync cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, read_sections,
)
from kernels.wire cimport bytes_view


cdef void open_gate(sequence_gate* made, uint64_t seed, read_sections* sections, void** elders) noexcept nogil:
    memset(made, 0, sizeof(sequence_gate))
    made.seed = seed
    made.sections = sections
    made.elders = elders
    pthread_mutex_init(&made.lock, NULL)


cdef void close_gate(sequence_gate* used) noexcept nogil:
    """Nobody is on the way any more, so that there is no place left."""
    pthread_mutex_destroy(&used.lock)


cdef int enter_gate(sequence_gate* gate, bytes_view name, int64_t version, const sequence_turn* asked,
                    gate_turn* turn) noexcept nogil:
    """Let a request go on, or have it wait behind those of its sequence; its id's hash is by the gate's seed.

    Once it waits, its run belongs to whoever takes it out.
    """
    cdef gate_place* place
    cdef int outcome = GATE_PASSED
    pthread_mutex_lock(&gate.lock)
    place = find_place(gate, name, version, asked)
    if place != NULL:
        append_turn(place, turn)
        outcome = GATE_WAITS
    else:
        place = make_place(gate, name, version, asked)
        outcome = GATE_PASSED if place != NULL else GATE_NO_MEMORY
    turn.place = place
    pthread_mutex_unlock(&gate.lock)
    return outcome


cdef bint leave_gate(sequence_gate* gate, gate_turn* turn) noexcept nogil:
    """Take a request that is given up out of its line; False when it does not wait."""
    cdef bint waited
    pthread_mutex_lock(&gate.lock)
    waited = turn.waits
    if waited:
        unlink_turn(turn)
        turn.place = NULL
    pthread_mutex_unlock(&gate.lock)
    return waited


cdef void* take_first(sequence_gate* gate, gate_place* place, bint has_passed) noexcept nogil:
    """Return the run whose turn it is, or NULL: then the place is no longer the caller's.

    Parameters
    ----------
    has_passed
        The caller's request has come past the gate. The thread that gets a run has it begin and asks again, without
        that: one thread at a time does so for a place, since runs that pass at once would go ever deeper otherwise.
    """
    cdef gate_turn* taken = NULL
    pthread_mutex_lock(&gate.lock)
    if has_passed:
        place.is_open = True
    if not has_passed or not place.is_served:
        place.is_served = place.is_open and place.first != NULL
        if place.is_served:
            taken = place.first
            unlink_turn(taken)
            place.is_open = False
        elif place.is_open:
            drop_place(gate, place)
    pthread_mutex_unlock(&gate.lock)
    return taken.run if taken != NULL else NULL


# ---- lines


cdef void append_turn(gate_place* place, gate_turn* turn) noexcept nogil:
    turn.waits = True
    turn.next = NULL
    turn.previous = place.last
    if place.last == NULL:
        place.first = turn
    else:
        place.last.next = turn
    place.last = turn


cdef void unlink_turn(gate_turn* turn) noexcept nogil:
    cdef gate_place* place = turn.place
    turn.waits = False
    if turn.previous == NULL:
        place.first = turn.next
    else:
        turn.previous.next = turn.next
    if turn.next == NULL:
        place.last = turn.previous
    else:
        turn.next.previous = turn.previous


# ---- places


cdef gate_place** find_bucket(sequence_gate* gate, uint64_t hash) noexcept nogil:
    return &gate.buckets[hash % GATE_BUCKETS]


cdef gate_place* find_place(sequence_gate* gate, bytes_view name, int64_t version,
                            const sequence_turn* asked) noexcept nogil:
    cdef gate_place* found = find_bucket(gate, asked.hash)[0]
    while found != NULL and not is_same(found, name, version, asked):
        found = found.chained
    return found


cdef bint is_same(const gate_place* one, bytes_view name, int64_t version, const sequence_turn* asked) noexcept nogil:
    if one.hash != asked.hash or one.version != version or one.number != asked.number:
        return False
    if (one.text.data == NULL) != (asked.text.data == NULL):
        return False
    return has_same_bytes(one.name, name) and has_same_bytes(one.text, asked.text)


cdef bint has_same_bytes(bytes_view one, bytes_view other) noexcept nogil:
    return one.size == other.size and (one.size == 0 or memcmp(one.data, other.data, one.size) == 0)


cdef gate_place* make_place(sequence_gate* gate, bytes_view name, int64_t version,
                            const sequence_turn* asked) noexcept nogil:
    """Add the place of a sequence, whose names are copied: its first request may be gone before it is."""
    cdef gate_place** bucket = find_bucket(gate, asked.hash)
    cdef gate_place* made = <gate_place*> calloc(1, sizeof(gate_place) + name.size + asked.text.size)
    cdef uint8_t* behind = <uint8_t*> (made + 1)
    if made == NULL:
        return NULL
    made.hash, made.version, made.number = asked.hash, version, asked.number
    memcpy(behind, name.data, name.size)
    made.name = bytes_view(behind, name.size)
    if asked.text.data != NULL:
        memcpy(behind + name.size, asked.text.data, asked.text.size)
        made.text = bytes_view(behind + name.size, asked.text.size)
    made.chained = bucket[0]
    bucket[0] = made
    return made


cdef void drop_place(sequence_gate* gate, gate_place* dropped) noexcept nogil:
    cdef gate_place** link = find_bucket(gate, dropped.hash)
    while link[0] != dropped:
        link = &link[0].chained
    link[0] = dropped.chained
    free(dropped)
