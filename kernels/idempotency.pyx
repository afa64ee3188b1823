"""A hash table with chains; its answers in the order in which they came, which is that of their end.

One lock, held for moments and never for a copy or for a message's digest.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.openssl cimport (
    EVP_DigestFinal_ex, EVP_DigestInit_ex, EVP_DigestUpdate, EVP_MD_CTX, EVP_MD_CTX_free, EVP_MD_CTX_new, EVP_MD_fetch,
    EVP_MD_free,
)
from kernels.request cimport JOINED, SETTLED
from kernels.status cimport EXHAUSTED, INVALID
from kernels.sync cimport (
    counter_add, counter_load, int_store, monotonic_ns, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock,
)

cdef enum:
    EXPECTED_BYTES = 1024        # of an answer: the table has as many buckets as there can be of them
    MIN_BUCKETS = 64
    MAX_BUCKETS = 1 << 20


cdef int open_book(answer_book* made, int64_t max_bytes, int64_t life_ns) noexcept nogil:
    """Make an empty book; none for 0 bytes. 0, or -1 without memory (close_book frees)."""
    cdef size_t buckets = MIN_BUCKETS
    memset(made, 0, sizeof(answer_book))
    if max_bytes == 0:
        return 0
    while buckets < MAX_BUCKETS and <int64_t> buckets * EXPECTED_BYTES < max_bytes:
        buckets *= 2
    pthread_mutex_init(&made.lock, NULL)
    made.max_bytes = max_bytes
    made.life_ns = life_ns
    made.mask = buckets - 1
    made.buckets = <keyed_answer**> calloc(buckets, sizeof(void*))
    # Once, since looking an algorithm up costs more than a short message's digest.
    made.digest = EVP_MD_fetch(NULL, b"SHA256", NULL)
    return 0 if made.buckets != NULL and made.digest != NULL else -1


cdef void close_book(answer_book* used) noexcept nogil:
    """Free a book whose runs have all ended; one of zeros is fine."""
    if used.max_bytes == 0:
        return
    while used.oldest != NULL:
        remove_oldest(used)
    free(used.buckets)
    EVP_MD_free(used.digest)
    pthread_mutex_destroy(&used.lock)
    memset(used, 0, sizeof(answer_book))


cdef int digest_message(const answer_book* book, const uint8_t* data, size_t size, uint8_t* digest) noexcept nogil:
    """0, or -1 without memory."""
    cdef EVP_MD_CTX* state = EVP_MD_CTX_new()
    cdef int failed = -1
    if state == NULL:
        return -1
    if (EVP_DigestInit_ex(state, book.digest, NULL) == 1 and EVP_DigestUpdate(state, data, size) == 1
            and EVP_DigestFinal_ex(state, digest, NULL) == 1):
        failed = 0
    EVP_MD_CTX_free(state)
    return failed


# ---- who comes and goes


cdef int join_answer(answer_book* book, const uint8_t* key, const uint8_t* body, request* caller,
                     keyed_answer** joined) noexcept nogil:
    """Find the answer of a key, or have the caller wait for it. A join_outcome.

    A caller that waits may be settled, by another thread, before this returns. Whom it begins for is settled by the end
    of the run, which has a hold of its own. `joined` has the caller's hold on what is answered; otherwise it has none.
    """
    cdef keyed_answer* found
    cdef int outcome = JOIN_REFUSED
    pthread_mutex_lock(&book.lock)
    remove_expired(book)
    found = find_answer(book, key)
    if found == NULL:
        if check_waiting(book, caller) == 0:
            found = begin_answer(book, key, body, caller)
            if found != NULL:
                outcome = JOIN_BEGINS
                add_caller(book, found, caller)
    elif memcmp(found.body, body, DIGEST_BYTES) != 0:
        book.conflicts += 1
        refuse(caller, INVALID, b"idempotency-key: this key came with another message before; a new request needs a new key")
    elif found.is_answered:
        outcome = JOIN_ANSWERED
        found.holders += 1
        book.replays += 1
        caller.is_replayed = True
    elif check_waiting(book, caller) == 0:
        outcome = JOIN_WAITS
        book.replays += 1
        caller.is_replayed = True
        add_caller(book, found, caller)
    joined[0] = found
    pthread_mutex_unlock(&book.lock)
    return outcome


cdef keyed_answer* begin_answer(answer_book* book, const uint8_t* key, const uint8_t* body, request* caller) noexcept nogil:
    """Put a run into the table, with the bytes that its message will take; NULL with the caller's error set."""
    cdef keyed_answer** bucket = find_bucket(book, key)
    cdef int64_t cost = <int64_t> (sizeof(keyed_answer) + caller.message_size)
    cdef keyed_answer* made = NULL
    # For what fits into no book nothing is given up.
    while cost <= book.max_bytes and book.bytes + cost > book.max_bytes and book.oldest != NULL:
        book.evictions += 1
        remove_oldest(book)
    if book.bytes + cost > book.max_bytes:
        snprintf(caller.error.text, FAILURE_TEXT_BYTES, "idempotency-key: requests with a key take %ld bytes, with this one "
                 "of %zu; at most %ld may be kept", <long> (book.bytes + cost), caller.message_size, <long> book.max_bytes)
        caller.error.code = EXHAUSTED
        return NULL
    made = <keyed_answer*> calloc(1, sizeof(keyed_answer))
    if made == NULL:
        refuse(caller, EXHAUSTED, b"no memory for the request")
        return NULL
    memcpy(made.key, key, DIGEST_BYTES)
    memcpy(made.body, body, DIGEST_BYTES)
    made.holders = 2
    made.cost = cost
    made.chained = bucket[0]
    bucket[0] = made
    book.bytes += cost
    book.entries += 1
    book.runs += 1
    return made


cdef int check_waiting(answer_book* book, request* caller) noexcept nogil:
    """0, or -1 with the caller's error set when no more of them may wait, or bytes of their messages."""
    cdef int64_t waiting_bytes = counter_load(book.pending_bytes) + <int64_t> caller.message_size
    if book.waiting >= book.max_waiting:
        snprintf(caller.error.text, FAILURE_TEXT_BYTES, "%ld requests with a key wait; no more may", <long> book.waiting)
    elif waiting_bytes > book.max_pending_bytes:
        snprintf(caller.error.text, FAILURE_TEXT_BYTES, "the server holds %ld bytes of requests; at most %ld may wait",
                 <long> waiting_bytes, <long> book.max_pending_bytes)
    else:
        return 0
    caller.error.code = EXHAUSTED
    return -1


cdef void refuse(request* caller, int code, const char* text) noexcept nogil:
    caller.error.code = code
    snprintf(caller.error.text, FAILURE_TEXT_BYTES, "%s", text)


cdef void add_caller(answer_book* book, keyed_answer* joined, request* caller) noexcept nogil:
    caller.joined = joined
    caller.next = NULL
    caller.previous = joined.last
    if joined.last == NULL:
        joined.first = caller
    else:
        joined.last.next = caller
    joined.last = caller
    book.waiting += 1
    counter_add(book.pending_bytes, <int64_t> caller.message_size)
    int_store(&caller.state, JOINED)


cdef void remove_caller(answer_book* book, keyed_answer* joined, request* caller) noexcept nogil:
    """Take a caller out; from here on a cancellation comes too late."""
    if caller.previous == NULL:
        joined.first = caller.next
    else:
        caller.previous.next = caller.next
    if caller.next == NULL:
        joined.last = caller.previous
    else:
        caller.next.previous = caller.previous
    caller.joined = NULL
    book.waiting -= 1
    counter_add(book.pending_bytes, -<int64_t> caller.message_size)
    int_store(&caller.state, SETTLED)


cdef bint leave_answer(answer_book* book, request* caller) noexcept nogil:
    """Take a caller that gives up out of those that wait; False when its answer has come. It is the caller's to settle."""
    cdef bint has_left
    pthread_mutex_lock(&book.lock)
    has_left = caller.joined != NULL
    if has_left:
        remove_caller(book, <keyed_answer*> caller.joined, caller)
    pthread_mutex_unlock(&book.lock)
    return has_left


# ---- the run


cdef void hold_message(keyed_answer* begun, uint8_t* block, bytes_view message, bytes_view version_hint) noexcept nogil:
    """Give a run its message; the answer owns `block`, in which both lie. Nobody else looks at it before the end."""
    begun.block = block
    begun.message = message
    begun.version_hint = version_hint


cdef request* take_late(answer_book* book, keyed_answer* begun, int64_t deadline_ns, int64_t* latest_ns,
                        bint* has_left) noexcept nogil:
    """Take those out who have no more time than a run that has expired, linked by `next`.

    `has_left` says whether others wait still, and `latest_ns` until when: 0 for without end.
    """
    cdef request* caller
    cdef request* following
    cdef request* late = NULL
    pthread_mutex_lock(&book.lock)
    caller = begun.first
    latest_ns[0] = deadline_ns
    while caller != NULL:
        following = caller.next
        if caller.deadline_ns != 0 and caller.deadline_ns <= deadline_ns:
            remove_caller(book, begun, caller)
            caller.next = late
            late = caller
        elif caller.deadline_ns == 0 or latest_ns[0] == 0:
            latest_ns[0] = 0
        else:
            latest_ns[0] = max(latest_ns[0], caller.deadline_ns)
        caller = following
    has_left[0] = begun.first != NULL
    pthread_mutex_unlock(&book.lock)
    return late


cdef request* end_answer(answer_book* book, keyed_answer* ended, uint8_t* kept, size_t size, bint is_lost) noexcept nogil:
    """End a run: keep its reply, in memory that the book takes over, or forget it where `kept` is NULL.

    `is_lost` says that there was one.

    Returns
    -------
    request*
        Who waited, linked by `next`, for the caller to settle.
    """
    cdef request* waited = NULL
    cdef request* caller
    pthread_mutex_lock(&book.lock)
    while ended.first != NULL:
        caller = ended.last
        remove_caller(book, ended, caller)
        caller.next = waited
        waited = caller
    free(ended.block)
    ended.block = kept
    book.bytes -= ended.cost
    ended.cost = <int64_t> (sizeof(keyed_answer) + size) if kept != NULL else 0
    book.bytes += ended.cost
    if kept == NULL:
        book.evictions += is_lost
        unlink_answer(book, ended)
    else:
        ended.reply = bytes_view(kept, size)
        link_youngest(book, ended)
    while book.bytes > book.max_bytes and book.oldest != NULL:
        book.evictions += 1
        remove_oldest(book)
    release(ended)
    pthread_mutex_unlock(&book.lock)
    return waited


cdef void drop_answer(answer_book* book, keyed_answer* held) noexcept nogil:
    """Give back a hold on an answer."""
    pthread_mutex_lock(&book.lock)
    release(held)
    pthread_mutex_unlock(&book.lock)


cdef void read_book(answer_book* book, book_usage* usage) noexcept nogil:
    """How much the book holds at this moment; zeros where there is none."""
    memset(usage, 0, sizeof(book_usage))
    if book.max_bytes == 0:
        return
    pthread_mutex_lock(&book.lock)
    remove_expired(book)
    usage.max_bytes = book.max_bytes
    usage.bytes = book.bytes
    usage.entries = book.entries
    usage.waiting = book.waiting
    usage.runs = book.runs
    usage.replays = book.replays
    usage.conflicts = book.conflicts
    usage.evictions = book.evictions
    pthread_mutex_unlock(&book.lock)


# ---- the table and the order of age; all under the lock


cdef inline keyed_answer** find_bucket(answer_book* book, const uint8_t* key) noexcept nogil:
    cdef uint64_t place
    memcpy(&place, key, sizeof(place))
    return &book.buckets[place & book.mask]


cdef keyed_answer* find_answer(answer_book* book, const uint8_t* key) noexcept nogil:
    cdef keyed_answer* found = find_bucket(book, key)[0]
    while found != NULL and memcmp(found.key, key, DIGEST_BYTES) != 0:
        found = found.chained
    return found


cdef void link_youngest(answer_book* book, keyed_answer* answered) noexcept nogil:
    answered.is_answered = True
    answered.answered_ns = monotonic_ns()
    if book.youngest == NULL:
        book.oldest = answered
    else:
        book.youngest.younger = answered
    book.youngest = answered


cdef void remove_expired(answer_book* book) noexcept nogil:
    cdef int64_t limit_ns
    if book.oldest == NULL:
        return
    limit_ns = monotonic_ns() - book.life_ns
    while book.oldest != NULL and book.oldest.answered_ns <= limit_ns:
        remove_oldest(book)


cdef void remove_oldest(answer_book* book) noexcept nogil:
    cdef keyed_answer* removed = book.oldest
    book.oldest = removed.younger
    if book.oldest == NULL:
        book.youngest = NULL
    book.bytes -= removed.cost
    unlink_answer(book, removed)


cdef void unlink_answer(answer_book* book, keyed_answer* removed) noexcept nogil:
    """Take an answer out of the table, with the table's hold."""
    cdef keyed_answer** link = find_bucket(book, removed.key)
    while link[0] != removed:
        link = &link[0].chained
    link[0] = removed.chained
    book.entries -= 1
    release(removed)


cdef void release(keyed_answer* held) noexcept nogil:
    held.holders -= 1
    if held.holders == 0:
        free(held.block)
        free(held)
