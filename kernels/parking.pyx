"""Parks requests for models that are not in memory, until the control plane has loaded them or knows why it cannot.

A parked request is cancelled, and expires at its deadline, as one in a queue. The first one of a model makes it wanted;
whoever loads it puts other routes in place, and what is parked then goes the way of these, whatever they lead to.
Lock order: the lot's, then the executor's. `done` is called with no lock held.
"""

from cython cimport final
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memset, strdup

from kernels.executor cimport drop_alarm, executor, set_alarm, task
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport MOVING, PARKED, SETTLED, request, was_withdrawn
from kernels.settling cimport fail_request, set_error
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, UNAVAILABLE
from kernels.sync cimport (
    CLOCK_MONOTONIC, counter_add, deadline_after, int_load, int_store, monotonic_ns, pthread_cond_broadcast,
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_timedwait,
    pthread_condattr_destroy, pthread_condattr_init, pthread_condattr_setclock, pthread_condattr_t,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, timespec,
)

cdef const char* STOPPING = b"the server is stopping"
cdef const char* WITHDRAWN = b"the request was cancelled while its model was being loaded"


@final
cdef class DormantModel:
    """What the routes of a model lead to that is not in memory; a change of Engine.exchange.

    Parameters
    ----------
    name : str
        The model's, as take_wanted gives it.

    Notes
    -----
    All routes of one model share one object: they are loaded together.
    """

    def __cinit__(self, str name not None):
        cdef bytes encoded = name.encode()
        self.core.name = strdup(encoded)
        if self.core.name == NULL:
            raise MemoryError

    def __dealloc__(self):
        # In no list by now: the engine has taken what was parked here when it took the routes away.
        free(self.core.name)


cdef int open_lot(parking_lot* made, executor* pool) noexcept nogil:
    """Make an empty lot; limits are the caller's to set. 0, or -1."""
    cdef pthread_condattr_t monotonic
    memset(made, 0, sizeof(parking_lot))
    made.task.ring = ring_lot
    made.pool = pool
    pthread_condattr_init(&monotonic)
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC)
    pthread_cond_init(&made.wanted, &monotonic)
    pthread_condattr_destroy(&monotonic)
    return pthread_mutex_init(&made.lock, NULL)


cdef void close_lot(parking_lot* lot) noexcept nogil:
    """Refuse what is parked and what comes later as UNAVAILABLE, and have take_wanted return at once."""
    cdef request* parked = NULL
    cdef request* chain
    cdef request* tail
    pthread_mutex_lock(&lot.lock)
    lot.closed = True
    while lot.first != NULL:
        tail = lot.first.last
        chain = empty(lot, lot.first, SETTLED)
        if tail != NULL:
            tail.next = parked
            parked = chain
    pthread_cond_broadcast(&lot.wanted)
    pthread_mutex_unlock(&lot.lock)
    drop_alarm(lot.pool, &lot.task)
    fail_parked(parked, UNAVAILABLE, STOPPING)


cdef void free_lot(parking_lot* lot) noexcept nogil:
    """Free a closed lot that nobody can reach any more."""
    pthread_cond_destroy(&lot.wanted)
    pthread_mutex_destroy(&lot.lock)


# ---- callers' side


cdef int park_request(parking_lot* lot, dormant* target, request* parked) noexcept nogil:
    """Have a decoded request wait for a model. 0, when it may have been settled already, or -1 with its error set.

    The caller holds the read section open in which it found the model.
    """
    cdef int64_t size = <int64_t> parked.message_size
    cdef int64_t bytes_waiting = counter_add(lot.pending_bytes, size)
    cdef int failed = -1
    pthread_mutex_lock(&lot.lock)
    if lot.closed:
        parked.error.code = UNAVAILABLE
        snprintf(parked.error.text, FAILURE_TEXT_BYTES, "%s", STOPPING)
    elif bytes_waiting > lot.max_pending_bytes:
        parked.error.code = EXHAUSTED
        snprintf(parked.error.text, FAILURE_TEXT_BYTES, "the server holds %ld bytes of requests; at most %ld may wait",
                 <long> bytes_waiting, <long> lot.max_pending_bytes)
    elif target.parked >= lot.max_parked:
        parked.error.code = EXHAUSTED
        snprintf(parked.error.text, FAILURE_TEXT_BYTES, "%ld requests wait for model '%s' to be loaded; no more may",
                 <long> target.parked, target.name)
    else:
        append(lot, target, parked)
        failed = 0
        if was_withdrawn(parked):
            unlink(parked)
            set_error(parked, CANCELLED, WITHDRAWN)
            failed = -1
    pthread_mutex_unlock(&lot.lock)
    if failed != 0:
        counter_add(lot.pending_bytes, -size)
    return failed


cdef void cancel_parked(parking_lot* lot, request* unwanted) noexcept nogil:
    """Settle a parked request as cancelled; do nothing to one that has left the lot meanwhile."""
    cdef bint is_parked
    pthread_mutex_lock(&lot.lock)
    is_parked = int_load(&unwanted.state) == PARKED
    if is_parked:
        remove(lot, unwanted)
        int_store(&unwanted.state, SETTLED)
        unwanted.next = NULL
    pthread_mutex_unlock(&lot.lock)
    if is_parked:
        fail_parked(unwanted, CANCELLED, WITHDRAWN)


cdef void fail_parked(request* refused, int code, const char* text) noexcept nogil:
    """Settle requests that have left the lot, linked by `next`. No lock held."""
    cdef request* following
    while refused != NULL:
        following = refused.next
        fail_request(refused, code, text)
        refused = following


# ---- the control plane's side


cdef object await_wanted(parking_lot* lot, double timeout_s):
    """As Engine.take_wanted."""
    cdef int64_t until_ns = deadline_after(<int64_t> (timeout_s * 1e6))
    cdef char* name
    with nogil:
        name = take_wanted(lot, until_ns)
    if name == NULL:
        return None
    try:
        return name.decode()
    finally:
        free(name)


cdef char* take_wanted(parking_lot* lot, int64_t until_ns) noexcept nogil:
    """Wait for a model that requests are parked for, and that nobody has taken yet.

    Returns its name, which is the caller's to free, or NULL: the time has come, the lot is closed, or without memory.
    """
    cdef timespec until
    cdef dormant* found
    cdef char* name = NULL
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&lot.lock)
    found = find_wanted(lot)
    while found == NULL and not lot.closed and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&lot.wanted, &lot.lock, &until)
        found = find_wanted(lot)
    if found != NULL:
        name = strdup(found.name)
        if name != NULL:
            found.stage = TAKEN
    pthread_mutex_unlock(&lot.lock)
    return name


cdef request* take_parked(parking_lot* lot, dormant* woken) noexcept nogil:
    """Take what was parked for a model whose routes have changed, the first first, linked by `next`."""
    cdef request* parked
    pthread_mutex_lock(&lot.lock)
    parked = empty(lot, woken, MOVING)
    pthread_mutex_unlock(&lot.lock)
    return parked


# ---- the lists; all under the lot's lock


cdef void append(parking_lot* lot, dormant* target, request* parked) noexcept nogil:
    parked.dormant = target
    parked.next = NULL
    parked.previous = target.last
    if target.last == NULL:
        target.first = parked
    else:
        target.last.next = parked
    target.last = parked
    target.parked += 1
    int_store(&parked.state, PARKED)
    if parked.deadline_ns != 0:
        wake_by(lot, parked.deadline_ns)
    if target.stage == UNASKED:
        enlist(lot, target)
        pthread_cond_signal(&lot.wanted)


cdef void remove(parking_lot* lot, request* leaving) noexcept nogil:
    unlink(leaving)
    counter_add(lot.pending_bytes, -<int64_t> leaving.message_size)


cdef void unlink(request* leaving) noexcept nogil:
    cdef dormant* home = <dormant*> leaving.dormant
    if leaving.previous == NULL:
        home.first = leaving.next
    else:
        leaving.previous.next = leaving.next
    if leaving.next == NULL:
        home.last = leaving.previous
    else:
        leaving.next.previous = leaving.previous
    home.parked -= 1


cdef void enlist(parking_lot* lot, dormant* asked) noexcept nogil:
    asked.stage = WANTED
    asked.next = NULL
    asked.previous = lot.last
    if lot.last == NULL:
        lot.first = asked
    else:
        lot.last.next = asked
    lot.last = asked


cdef void delist(parking_lot* lot, dormant* asked) noexcept nogil:
    if asked.previous == NULL:
        lot.first = asked.next
    else:
        asked.previous.next = asked.next
    if asked.next == NULL:
        lot.last = asked.previous
    else:
        asked.next.previous = asked.previous
    asked.stage = UNASKED


cdef dormant* find_wanted(parking_lot* lot) noexcept nogil:
    """Return what has been wanted for longest, or NULL; what nobody waits for any more is forgotten."""
    cdef dormant* asked = lot.first
    cdef dormant* following
    while asked != NULL:
        following = asked.next
        if asked.stage == WANTED:
            if asked.first != NULL:
                return asked
            delist(lot, asked)
        asked = following
    return NULL


cdef request* empty(parking_lot* lot, dormant* target, int state) noexcept nogil:
    """Take all that is parked for a model, which is asked for no longer, and leave each in a state."""
    cdef request* parked = target.first
    cdef request* member = parked
    while member != NULL:
        int_store(&member.state, state)
        counter_add(lot.pending_bytes, -<int64_t> member.message_size)
        member = member.next
    target.first = target.last = NULL
    target.parked = 0
    if target.stage != UNASKED:
        delist(lot, target)
    return parked


cdef void wake_by(parking_lot* lot, int64_t due_ns) noexcept nogil:
    """Have the timer look at the lot at `due_ns` at the latest."""
    if lot.alarm_ns == 0 or due_ns < lot.alarm_ns:
        lot.alarm_ns = due_ns
        set_alarm(lot.pool, &lot.task, due_ns)


cdef void ring_lot(task* due) noexcept nogil:
    """Settle what has expired. On the timer thread."""
    cdef parking_lot* lot = <parking_lot*> due
    cdef int64_t now_ns = monotonic_ns(), earliest = INT64_MAX
    cdef dormant* asked
    cdef request* expired = NULL
    pthread_mutex_lock(&lot.lock)
    lot.alarm_ns = 0
    asked = lot.first
    while asked != NULL:
        expired = take_expired(lot, asked, now_ns, &earliest, expired)
        asked = asked.next
    if earliest != INT64_MAX:
        wake_by(lot, earliest)
    pthread_mutex_unlock(&lot.lock)
    fail_parked(expired, EXPIRED, "Deadline Exceeded while the model was being loaded")


cdef request* take_expired(parking_lot* lot, dormant* home, int64_t now_ns, int64_t* earliest,
                           request* expired) noexcept nogil:
    """Unlink what has expired of one model, before the list `expired`; lower `earliest` to the next deadline."""
    cdef request* member = home.first
    cdef request* following
    while member != NULL:
        following = member.next
        if member.deadline_ns != 0 and member.deadline_ns <= now_ns:
            remove(lot, member)
            int_store(&member.state, SETTLED)
            member.next = expired
            expired = member
        elif member.deadline_ns != 0:
            earliest[0] = min(earliest[0], member.deadline_ns)
        member = following
    return expired
