"""Decides when what waits becomes a batch, and takes it out of the queue; under whatever lock guards that.

Preferred sizes are preferences, as with Triton: before the delay is over a batch of the largest of them that can be had goes;
then whatever is there goes, up to the model's largest batch.
"""

from libc.stdint cimport int32_t, int64_t

from kernels.padding cimport padded_extent, widen_extent
from kernels.request cimport RUNNING, request
from kernels.request_queue cimport (
    find_first, find_give_up, find_next, find_oldest_arrival, has_expired, request_queue, unlink_request,
)
from kernels.signature cimport can_merge, signature
from kernels.sync cimport int_store

cdef enum:
    SCANNED_REQUESTS = 256   # how far behind its head a queue is searched for requests that fit the batch


cdef batch_choice choose_batch(const batch_rules* rules, const signature* accepted, request_queue* source,
                               int64_t now_ns, bint is_draining, bint is_busy) noexcept nogil:
    """Say whether a batch of a queue that is not empty is to be run now, why, and how large it may be at most."""
    cdef batch_choice chosen = batch_choice(STAY, accepted.max_batch_size)
    cdef bint is_full = source.rows >= accepted.max_batch_size
    cdef int64_t over_ns = 0, preferred = 0, give_up_ns
    if rules.delay_ns != 0:
        over_ns = find_oldest_arrival(source) + rules.delay_ns
    if rules.n_preferred > 0 and not is_draining and (rules.delay_ns == 0 or now_ns < over_ns):
        preferred = find_preferred(rules, accepted, source, now_ns)
    if preferred > 0:
        chosen.reason = BY_FULL if preferred == accepted.max_batch_size else BY_PREFERENCE
        chosen.max_rows = preferred
    elif is_full:
        chosen.reason = BY_FULL
    elif is_draining:
        chosen.reason = BY_DRAIN
    elif rules.delay_ns == 0 or over_ns <= now_ns:
        chosen.reason = BY_DELAY
    elif rules.enough_rows > 0 and source.rows >= rules.enough_rows:
        chosen.reason = BY_PREFERENCE
    elif rules.skips_delay_alone and source.requests == 1 and not is_busy:
        chosen.reason = BY_LONELINESS
    else:
        give_up_ns = find_give_up(source)
        if give_up_ns != 0 and give_up_ns <= over_ns:
            chosen.reason = BY_DEADLINE
    return chosen


cdef int64_t find_preferred(const batch_rules* rules, const signature* accepted, const request_queue* source,
                            int64_t now_ns) noexcept nogil:
    """Return the largest preferred size that the requests whose turn it is make up exactly.

    Where they pass the largest of all without meeting any, that one bounds the batch. 0 when more should come first.
    """
    cdef int64_t largest = rules.preferred[rules.n_preferred - 1], rows = 0, met = 0
    cdef int32_t index = 0, scanned = 0
    cdef const request* head = NULL
    cdef const request* member = find_first(source)
    cdef padded_extent extent
    extent.rows = 0
    if source.rows < rules.preferred[0]:
        return 0
    while member != NULL and rows < largest and scanned < SCANNED_REQUESTS:
        scanned += 1
        if not has_expired(member, now_ns) and can_join(accepted, head, member, &extent):
            if head == NULL:
                head = member
            if rows + member.rows > largest:
                return met if met > 0 else max(rows, member.rows)
            rows += member.rows
            while index < rules.n_preferred and rules.preferred[index] < rows:
                index += 1
            if rules.preferred[index] == rows:
                met = rows
        elif rules.keeps_order and head != NULL:
            break
        member = find_next(source, member)
    return met


cdef request* take_batch(const batch_rules* rules, const signature* accepted, request_queue* source, int64_t now_ns,
                         int64_t max_rows, int64_t* rows) noexcept nogil:
    """Unlink the request whose turn it is and those behind it that fit with it, up to `max_rows` rows; NULL without any.

    What has expired is left to the timer, which is on its way to settle it.
    """
    cdef request* head = find_first(source)
    cdef request* tail
    cdef request* member
    cdef request* following
    cdef int32_t scanned = 0
    cdef padded_extent extent
    extent.rows = 0
    rows[0] = 0
    while head != NULL and has_expired(head, now_ns):
        head = find_next(source, head)
    if head == NULL:
        return NULL
    tail = head
    member = find_next(source, head)
    can_join(accepted, NULL, head, &extent)
    start_request(source, head, rows)
    while member != NULL and rows[0] < max_rows and scanned < SCANNED_REQUESTS:
        following = find_next(source, member)
        if not has_expired(member, now_ns):
            if rows[0] + member.rows <= max_rows and can_join(accepted, head, member, &extent):
                start_request(source, member, rows)
                tail.next = member
                tail = member
            elif rules.keeps_order:
                break
        member = following
        scanned += 1
    return head


cdef inline bint can_join(const signature* accepted, const request* head, const request* member,
                          padded_extent* extent) noexcept nogil:
    """Whether a request goes into the batch that `head` leads, if there is one; it counts as part of that from then on."""
    if head != NULL and not can_merge(accepted, head, member):
        return False
    return accepted.uneven == NULL or widen_extent(accepted.uneven, extent, member)


cdef void start_request(request_queue* source, request* member, int64_t* rows) noexcept nogil:
    unlink_request(source, member)
    int_store(&member.state, RUNNING)
    rows[0] += member.rows
