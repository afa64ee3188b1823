"""Runs a request with a key once, for all that wait for its answer, and hands each of them a copy.

The run is a request of its own, with a copy of the message, since the one who sent that may leave. Once begun it is never
cancelled: who retries a call that broke off is to find its answer.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kernels.alignment cimport shift_for
from kernels.codec cimport bytes_view
from kernels.dispatch cimport check_deadline, close_request, open_request, read_request, submit_request
from kernels.idempotency cimport (
    DIGEST_BYTES, JOIN_ANSWERED, JOIN_BEGINS, JOIN_REFUSED, digest_message, drop_answer, end_answer, hold_message,
    join_answer, keyed_answer, take_late,
)
from kernels.request cimport reserve_reply
from kernels.settling cimport fail_request, set_error, settle_request
from kernels.status cimport EXHAUSTED, EXPIRED, OK

cdef const char* NO_MEMORY = b"no memory for the request"


cdef void submit_keyed(engine_core* core, request* caller) noexcept nogil:
    """As submit_request, of a request that came with a key."""
    cdef uint8_t[DIGEST_BYTES] body
    cdef keyed_answer* joined
    cdef int outcome
    if read_request(caller) != 0 or check_deadline(caller) != 0:
        settle_request(caller)
        return
    if digest_message(&core.keyed, caller.message, caller.message_size, body) != 0:
        fail_request(caller, EXHAUSTED, NO_MEMORY)
        return
    outcome = join_answer(&core.keyed, caller.key, body, caller, &joined)
    if outcome == JOIN_BEGINS:
        begin_run(core, joined, caller)
    elif outcome == JOIN_ANSWERED:
        hand_over(caller, joined.reply)
        drop_answer(&core.keyed, joined)
        settle_request(caller)
    elif outcome == JOIN_REFUSED:
        settle_request(caller)


cdef void begin_run(engine_core* core, keyed_answer* begun, const request* caller) noexcept nogil:
    """Copy what the run needs of the caller, which its own thread alone can settle before the run has begun."""
    cdef size_t size = caller.message_size, hint_size = caller.version_hint.size
    # As the transport has it: a last tensor that is aligned is run on where it lies.
    cdef size_t shift = shift_for(size)
    cdef int64_t deadline_ns = caller.deadline_ns
    cdef uint8_t* block = <uint8_t*> malloc(shift + size + hint_size + 1)
    if block == NULL:
        fail_all(core, begun, NO_MEMORY)
        return
    if size > 0:
        memcpy(block + shift, caller.message, size)
    if hint_size > 0:
        memcpy(block + shift + size, caller.version_hint.data, hint_size)
    hold_message(begun, block, bytes_view(block + shift, size), bytes_view(block + shift + size, hint_size))
    submit_run(core, begun, deadline_ns)


cdef void submit_run(engine_core* core, keyed_answer* begun, int64_t deadline_ns) noexcept nogil:
    cdef request* run = open_request(core)
    if run == NULL:
        fail_all(core, begun, NO_MEMORY)
        return
    run.message = begun.message.data
    run.message_size = begun.message.size
    run.version_hint = begun.version_hint
    run.deadline_ns = deadline_ns
    run.is_for_key = True
    run.context = begun
    run.call = core
    run.done = end_run
    submit_request(core, run)


cdef void end_run(request* run) noexcept nogil:
    """Called by the engine, from any thread."""
    cdef engine_core* core = <engine_core*> run.call
    cdef keyed_answer* begun = <keyed_answer*> run.context
    cdef uint8_t* kept
    if run.error.code in (EXPIRED, EXHAUSTED) and run.deadline_ns != 0 and run_again(core, begun, run):
        close_request(core, run)
        return
    kept = keep_reply(core, run)
    settle_all(end_answer(&core.keyed, begun, kept, run.reply_size, run.error.code == OK and kept == NULL), run)
    close_request(core, run)


cdef bint run_again(engine_core* core, keyed_answer* begun, const request* run) noexcept nogil:
    """Run once more for those who have more time than the run had, which may have failed for that; False without any."""
    cdef int64_t latest_ns
    cdef bint has_left
    settle_all(take_late(&core.keyed, begun, run.deadline_ns, &latest_ns, &has_left), run)
    if not has_left:
        return False
    submit_run(core, begun, latest_ns)
    return True


cdef uint8_t* keep_reply(engine_core* core, const request* run) noexcept nogil:
    """Copy the reply of a run that succeeded; NULL without one, of one that is too large, and without memory."""
    cdef uint8_t* kept
    if run.error.code != OK:
        return NULL
    if <int64_t> (run.reply_size + sizeof(keyed_answer)) > core.keyed.max_bytes:
        return NULL
    kept = <uint8_t*> malloc(run.reply_size + 1)
    if kept != NULL and run.reply_size > 0:
        memcpy(kept, run.reply, run.reply_size)
    return kept


cdef void settle_all(request* waited, const request* run) noexcept nogil:
    """Hand what came of a run to callers that are linked by `next`."""
    cdef request* following
    while waited != NULL:
        following = waited.next
        waited.error = run.error
        waited.retry_ns = run.retry_ns
        if run.error.code == OK:
            hand_over(waited, bytes_view(run.reply, run.reply_size))
        settle_request(waited)
        waited = following


cdef void fail_all(engine_core* core, keyed_answer* begun, const char* text) noexcept nogil:
    """End a run that could not be begun."""
    cdef request* waited = end_answer(&core.keyed, begun, NULL, 0, False)
    cdef request* following
    while waited != NULL:
        following = waited.next
        fail_request(waited, EXHAUSTED, text)
        waited = following


cdef void hand_over(request* caller, bytes_view reply) noexcept nogil:
    """Write a reply into a caller's own memory."""
    cdef uint8_t* target = reserve_reply(caller, max(reply.size, <size_t> 1), 0)
    if target == NULL:
        set_error(caller, EXHAUSTED, b"no memory for the reply")
        return
    if reply.size > 0:
        memcpy(target, reply.data, reply.size)
    caller.reply_size = reply.size
