"""Keeps the sequences of a model version: in each, one request at a time, in the order in which they came.

A sequence lives from its first request until one with an end has left, or until it has been silent for too long. It has a
slot from its first turn on; without one it waits in the backlog, and goes once it has no request left. So there are never
more sequences than slots and requests that may wait.

The backlog is bounded by itself: if what waits there could fill the queue, those that have a slot could not go on, and
nobody would ever give one away.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.refusals cimport refuse
from kernels.request cimport QUEUED, request, sequence_turn
from kernels.request_list cimport link_last, unlink_from
from kernels.request_queue cimport find_earlier, has_expired
from kernels.sequence_id cimport SHOWN_ID_BYTES, write_id
from kernels.sequence_inputs cimport bind_turn
from kernels.sequence_rules cimport sequence_rules
from kernels.status cimport EXHAUSTED, INVALID
from kernels.sync cimport int_store

cdef enum:
    MAX_BUCKETS = 65536
    PREFIX_BYTES = 4          # of a BYTES element


cdef sequence_table* open_sequences(const sequence_rules* rules, int64_t max_queued, uint64_t seed) noexcept nogil:
    """Make a table without sequences, or return NULL without memory.

    Parameters
    ----------
    seed
        What nobody outside can know: clients choose ids.
    """
    cdef sequence_table* made = <sequence_table*> calloc(1, sizeof(sequence_table))
    cdef uint64_t buckets = 16
    if made == NULL:
        return NULL
    while buckets < MAX_BUCKETS and buckets < <uint64_t> (rules.slots + max_queued):
        buckets *= 2
    made.rules = rules
    made.mask = buckets - 1
    made.seed = seed
    made.buckets = <sequence**> calloc(buckets, sizeof(void*))
    if made.buckets == NULL:
        free(made)
        return NULL
    return made


cdef void close_sequences(sequence_table* used) noexcept nogil:
    """Free a table of which no request waits or runs; NULL is fine."""
    cdef uint64_t place
    if used == NULL:
        return
    for place in range(used.mask + 1):
        while used.buckets[place] != NULL:
            end_sequence(used, used.buckets[place])
    free(used.buckets)
    free(used)


# ---- a request's way


cdef int join_sequence(sequence_table* table, request* joining) noexcept nogil:
    """Put a request behind the others of its sequence; take_released has it when its turn has come.

    0, or -1 with its error set: it has several rows, or neither begins a sequence nor is of one that is under way.
    """
    cdef sequence* home = find_sequence(table, &joining.turn)
    if joining.rows != 1:
        snprintf(joining.error.text, FAILURE_TEXT_BYTES,
                 "the request has a batch of %ld rows; expected 1 from a request of a sequence", <long> joining.rows)
        return refuse(joining, INVALID)
    if not joining.turn.starts and (home == NULL or home.is_ending):
        return refuse_unknown(joining)
    if home == NULL:
        home = begin_sequence(table, &joining.turn)
        if home == NULL:
            snprintf(joining.error.text, FAILURE_TEXT_BYTES, "no memory for another sequence")
            return refuse(joining, EXHAUSTED)
    joining.turn.home = home
    joining.turn.waits = True
    joining.turn.is_fresh = joining.turn.starts or home.is_reset
    home.is_reset = False
    home.is_ending = joining.turn.ends
    append_waiting(table, home, joining)
    int_store(&joining.state, QUEUED)
    if home.released == NULL:
        take_turn(table, home)
    return 0


cdef int64_t count_ahead(const sequence_table* table, const request* joining, int64_t queued) noexcept nogil:
    """How many requests wait where this one would: for a slot; or, `queued` of them in the batcher's queue, with one."""
    cdef const sequence* home = find_sequence(table, &joining.turn)
    return table.waiting - table.backlogged + queued if home != NULL and home.has_slot else table.backlogged


cdef int refuse_unknown(request* refused) noexcept nogil:
    cdef char shown[SHOWN_ID_BYTES]
    write_id(&refused.turn, shown)
    snprintf(refused.error.text, FAILURE_TEXT_BYTES,
             "sequence %s of model '%.*s' is not under way; expected sequence_start with its first request", shown,
             <int> min(refused.view.model_name.size, <size_t> 128), <const char*> refused.view.model_name.data)
    return refuse(refused, INVALID)


cdef request* take_released(sequence_table* table) noexcept nogil:
    """Return a request whose turn has come, for the batcher's queue, or NULL."""
    cdef request* taken = table.turn_first
    if taken != NULL:
        table.turn_first = taken.next
        taken.next = NULL
    return taken


cdef void leave_sequence(sequence_table* table, request* leaving, bint has_run, int64_t now_ns) noexcept nogil:
    """Let go of a request that has run, or is given up; the next of its sequence gets its turn.

    Parameters
    ----------
    has_run
        Whether its caller gets a reply: what the run gave is then the state. Otherwise the state stays as it was; that
        the request began or ended the sequence holds all the same.
    """
    cdef sequence* home = <sequence*> leaving.turn.home
    if leaving.turn.waits:
        remove_waiting(table, home, leaving)
    else:
        home.released = NULL
        if has_run:
            home.current ^= 1
            home.has_state = True
    if home.released != NULL:
        return
    if home.line.first == NULL:
        rest_sequence(table, home, now_ns)
    elif leaving.turn.ends and not leaving.turn.waits and table.backlog.first != NULL:
        # What follows is another sequence of the same name: those that came earlier are first.
        give_up_slot(table, home)
        move_sequence(home, &table.backlog)
    else:
        take_turn(table, home)
    fill_slots(table)


cdef request* take_overdue(sequence_table* table, int64_t now_ns, int64_t* wake_ns) noexcept nogil:
    """Let requests leave that wait and are to be given up; return them linked by `next`.

    `wake_ns`, 0 for never, is lowered to when the first of the others is.
    """
    cdef request* overdue = NULL
    if table.waiting == 0:
        return NULL
    take_overdue_of(table, &table.backlog, now_ns, wake_ns, &overdue)
    take_overdue_of(table, &table.busy, now_ns, wake_ns, &overdue)
    return overdue


cdef void take_overdue_of(sequence_table* table, sequence_list* members, int64_t now_ns, int64_t* wake_ns,
                          request** overdue) noexcept nogil:
    """As take_overdue, of one list, in which nothing else changes meanwhile: nobody in it comes to its turn by this."""
    cdef sequence* home = members.first
    cdef sequence* next_home
    cdef request* member
    cdef request* following
    while home != NULL:
        next_home = home.next
        member = home.line.first
        while member != NULL:
            following = member.next
            if has_expired(member, now_ns):
                # The last one takes a sequence of the backlog with it.
                leave_waiting(table, home, member, now_ns)
                member.next = overdue[0]
                overdue[0] = member
            else:
                wake_ns[0] = find_earlier(wake_ns[0], member.give_up_ns)
            member = following
        home = next_home


cdef void leave_waiting(sequence_table* table, sequence* home, request* leaving, int64_t now_ns) noexcept nogil:
    remove_waiting(table, home, leaving)
    if home.line.first == NULL and home.released == NULL:
        rest_sequence(table, home, now_ns)


cdef void append_waiting(sequence_table* table, sequence* home, request* joining) noexcept nogil:
    link_last(&home.line, joining)
    count_waiting(table, home, 1)


cdef void remove_waiting(sequence_table* table, sequence* home, request* leaving) noexcept nogil:
    """Unlink a request that waits; that it was to begin the sequence anew passes on to the one behind it."""
    if leaving.turn.is_fresh:
        if leaving.next != NULL:
            leaving.next.turn.is_fresh = True
        else:
            home.is_reset = True
    unlink_waiting(table, home, leaving)


cdef void unlink_waiting(sequence_table* table, sequence* home, request* leaving) noexcept nogil:
    unlink_from(&home.line, leaving)
    count_waiting(table, home, -1)


cdef void count_waiting(sequence_table* table, sequence* home, int64_t more) noexcept nogil:
    home.waiting += more
    table.waiting += more
    if not home.has_slot:
        table.backlogged += more


# ---- turns and slots


cdef void take_turn(sequence_table* table, sequence* home) noexcept nogil:
    """Release a sequence's first request; without a slot, it waits in the backlog for one. Nothing of it is released."""
    cdef request* member = home.line.first
    if not home.has_slot:
        if home.home != &table.backlog:
            move_sequence(home, &table.backlog)
        if table.backlog.first != home or not has_free_slot(table):
            return
        home.has_slot = True
        table.slots_taken += 1
        table.backlogged -= home.waiting
    unlink_waiting(table, home, member)
    member.turn.waits = False
    home.released = member
    move_sequence(home, &table.busy)
    bind_turn(table.rules, home, member)
    if table.turn_first == NULL:
        table.turn_first = member
    else:
        table.turn_last.next = member
    table.turn_last = member


cdef void fill_slots(sequence_table* table) noexcept nogil:
    """Give free slots to those that have waited for longest."""
    while table.backlog.first != NULL and has_free_slot(table):
        take_turn(table, table.backlog.first)


cdef bint has_free_slot(const sequence_table* table) noexcept nogil:
    return table.is_unbounded or table.slots_taken < table.rules.slots


cdef void give_up_slot(sequence_table* table, sequence* home) noexcept nogil:
    if home.has_slot:
        home.has_slot = False
        table.slots_taken -= 1
        table.backlogged += home.waiting


cdef void set_unbounded(sequence_table* table, bint is_unbounded) noexcept nogil:
    """For a drain: let every sequence that waits have a slot, since those that have one may stay silent."""
    table.is_unbounded = is_unbounded
    fill_slots(table)


# ---- sequences


cdef sequence* find_sequence(const sequence_table* table, const sequence_turn* turn) noexcept nogil:
    """Return the sequence that a request names, or NULL."""
    cdef sequence* found = table.buckets[turn.hash & table.mask]
    while found != NULL and not is_same(found, turn):
        found = found.chain
    return found


cdef bint is_same(const sequence* one, const sequence_turn* turn) noexcept nogil:
    if one.hash != turn.hash or (one.text != NULL) != (turn.text.data != NULL):
        return False
    if one.text == NULL:
        return one.number == turn.number
    return (one.text_size == turn.text.size + PREFIX_BYTES
            and memcmp(<const char*> one.text + PREFIX_BYTES, turn.text.data, turn.text.size) == 0)


cdef bint has_sequence(const sequence_table* table, const request* asking) noexcept nogil:
    """Tell whether a request goes on with a sequence that is under way here."""
    cdef const sequence* found = find_sequence(table, &asking.turn)
    return not asking.turn.starts and found != NULL and not found.is_ending


cdef sequence* begin_sequence(sequence_table* table, const sequence_turn* turn) noexcept nogil:
    """Add a sequence without requests and without a slot; NULL without memory."""
    cdef sequence* made = <sequence*> calloc(1, sizeof(sequence))
    cdef sequence** bucket = &table.buckets[turn.hash & table.mask]
    if made == NULL:
        return NULL
    made.values = <state_value*> calloc(2 * <size_t> table.rules.n_states + 1, sizeof(state_value))
    made.hash = turn.hash
    made.number = turn.number
    if made.values == NULL or (turn.text.data != NULL and copy_text(made, turn) != 0):
        free(made.values)
        free(made)
        return NULL
    made.chain = bucket[0]
    bucket[0] = made
    table.live += 1
    return made


cdef int copy_text(sequence* made, const sequence_turn* turn) noexcept nogil:
    cdef uint32_t length = <uint32_t> turn.text.size
    made.text_size = turn.text.size + PREFIX_BYTES
    made.text = malloc(made.text_size)
    if made.text == NULL:
        return -1
    memcpy(made.text, &length, PREFIX_BYTES)
    memcpy(<char*> made.text + PREFIX_BYTES, turn.text.data, turn.text.size)
    return 0


cdef void rest_sequence(sequence_table* table, sequence* home, int64_t now_ns) noexcept nogil:
    """Say what becomes of a sequence that has no request left: it ends, or is idle from now on."""
    if home.is_ending or not home.has_slot:
        end_sequence(table, home)
        return
    home.idle_since_ns = now_ns
    move_sequence(home, &table.idle)


cdef void end_sequence(sequence_table* table, sequence* ended) noexcept nogil:
    """Free a sequence that has no request."""
    cdef sequence** link = &table.buckets[ended.hash & table.mask]
    cdef int32_t index
    while link[0] != ended:
        link = &link[0].chain
    link[0] = ended.chain
    leave_list(ended)
    give_up_slot(table, ended)
    table.live -= 1
    for index in range(2 * table.rules.n_states):
        free(ended.values[index].data)
    free(ended.values)
    free(ended.text)
    free(ended)


cdef int64_t end_idle(sequence_table* table, int64_t now_ns) noexcept nogil:
    """End what has been silent for too long and give its slots away; return when to look again, 0 for never."""
    while table.idle.first != NULL and find_idle_due(table) <= now_ns:
        end_sequence(table, table.idle.first)
    fill_slots(table)
    return find_idle_due(table)


cdef int64_t find_idle_due(const sequence_table* table) noexcept nogil:
    """When the sequence that has been idle for longest ends, 0 without any."""
    return table.idle.first.idle_since_ns + table.rules.idle_ns if table.idle.first != NULL else 0


cdef void move_sequence(sequence* moved, sequence_list* target) noexcept nogil:
    """Put a sequence at the end of a list, out of the one that it is in."""
    leave_list(moved)
    moved.home = target
    moved.previous = target.last
    moved.next = NULL
    if target.last == NULL:
        target.first = moved
    else:
        target.last.next = moved
    target.last = moved


cdef void leave_list(sequence* leaving) noexcept nogil:
    cdef sequence_list* home = leaving.home
    if home == NULL:
        return
    if leaving.previous == NULL:
        home.first = leaving.next
    else:
        leaving.previous.next = leaving.next
    if leaving.next == NULL:
        home.last = leaving.previous
    else:
        leaving.next.previous = leaving.previous
    leaving.home = NULL
