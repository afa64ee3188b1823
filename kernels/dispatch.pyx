"""The data plane's way in: decode, find the batcher, check, admit; from any thread, without the GIL.

A batcher is found through an immutable table inside a read section: no lock, no reference count, and nothing found is
freed before the section has been left.
"""

from libc.stdio cimport snprintf
from libc.string cimport strlen

from kernels.batcher cimport admit_request, batcher, cancel_request, count_refusal, settle_request
from kernels.codec cimport (
    DECODE_LIMIT, DECODE_NO_MEMORY, OWNER_REQUEST, PARAMETER_BOOL, bytes_view, decode_request, find_parameter,
    parameter_view,
)
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.parking cimport cancel_parked, dormant, park_request
from kernels.request cimport PARKED, QUEUED, RUNNING, give_back_request, request, take_request
from kernels.routes cimport find_route, route, route_key, route_table
from kernels.signature cimport bind_request
from kernels.status cimport EXHAUSTED, EXPIRED, INVALID, NOT_FOUND, UNAVAILABLE
from kernels.sync cimport (
    int_load, monotonic_ns, pointer_load, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal,
    pthread_cond_t, pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock, section_enter, section_leave,
)

cdef enum:
    SHOWN_NAME_BYTES = 100     # of a name that a client sent, in an error
    MAX_LABEL_BYTES = 64       # as service/version_policy.py has it

# A request's parameter: true has the reply say how long the request waited and ran.
cdef const char* TIMING = b"server_timing"


cdef request* open_request(engine_core* core) noexcept nogil:
    """Return a fresh request for the transport to fill in, or NULL without memory."""
    return take_request(&core.requests)


cdef void close_request(engine_core* core, request* used) noexcept nogil:
    """Give a request back after its `done` was called, or before it was submitted."""
    give_back_request(&core.requests, used)


cdef void submit_request(engine_core* core, request* submitted) noexcept nogil:
    """Decode, check and queue a request. Its `done` is called exactly once, perhaps before this returns."""
    submitted.arrival_ns = monotonic_ns()
    if decode_message(submitted) != 0 or (submitted.view.n_parameters > 0 and read_parameters(submitted) != 0):
        settle_request(submitted)
        return
    place_request(core, submitted)


cdef void place_request(engine_core* core, request* decoded) noexcept nogil:
    """Queue a decoded request where the table leads, have it wait for its model there, or settle it as refused."""
    cdef int phase = section_enter(&core.sections)
    cdef dormant* sleeper = NULL
    cdef batcher* target = route_request(<route_table*> pointer_load(&core.table), decoded, &sleeper)
    if target != NULL and bind_request(&target.accepted, decoded) == 0 and check_deadline(decoded) == 0:
        admit_request(target, decoded)
    elif sleeper == NULL or check_deadline(decoded) != 0 or park_request(&core.lot, sleeper, decoded) != 0:
        if target != NULL:
            count_refusal(target, decoded)
        settle_request(decoded)
    section_leave(&core.sections, phase)


cdef void offer_request(batcher* target, request* submitted) noexcept nogil:
    """As submit_request, to a version that no table leads to, whatever the message names; the caller keeps it alive."""
    submitted.arrival_ns = monotonic_ns()
    if (decode_message(submitted) == 0 and bind_request(&target.accepted, submitted) == 0
            and check_deadline(submitted) == 0):
        admit_request(target, submitted)
    else:
        settle_request(submitted)


cdef void withdraw_request(engine_core* core, request* unwanted) noexcept nogil:
    """Cancel a submitted request that has not been given back; nothing happens when its reply stands already."""
    cdef int phase = section_enter(&core.sections)
    cdef int state = int_load(&unwanted.state)
    if state in (QUEUED, RUNNING):
        cancel_request(unwanted)
    elif state == PARKED:
        cancel_parked(&core.lot, unwanted)
    section_leave(&core.sections, phase)


cdef int refuse(request* target, int code) noexcept nogil:
    target.error.code = code
    return -1


cdef int decode_message(request* target) noexcept nogil:
    cdef int outcome = decode_request(target.message, target.message_size, &target.view)
    if outcome == 0:
        return 0
    if outcome == DECODE_NO_MEMORY:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "no memory for a request of %zu bytes", target.message_size)
        return refuse(target, EXHAUSTED)
    if outcome == DECODE_LIMIT:
        snprintf(target.error.text, FAILURE_TEXT_BYTES,
                 "the request has more inputs, outputs, parameters or dimensions than a server can be asked to hold")
        return refuse(target, INVALID)
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "the message of %zu bytes is no valid ModelInferRequest",
             target.message_size)
    return refuse(target, INVALID)


cdef int read_parameters(request* target) noexcept nogil:
    """Look for what the engine itself reads of a request's parameters."""
    cdef const parameter_view* found = find_parameter(&target.view, OWNER_REQUEST, TIMING, strlen(TIMING))
    if found == NULL:
        return 0
    if found.kind != PARAMETER_BOOL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' is not a bool", TIMING)
        return refuse(target, INVALID)
    target.wants_timing = found.value.as_bool
    return 0


cdef int check_deadline(request* target) noexcept nogil:
    if target.deadline_ns == 0 or target.deadline_ns > target.arrival_ns:
        return 0
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "the deadline had passed before the request arrived")
    return refuse(target, EXPIRED)


cdef batcher* route_request(const route_table* table, request* target, dormant** sleeper) noexcept nogil:
    """Return the batcher of the model and version that a decoded request names.

    NULL either with the dormant model that it is to wait for, or with its error set.
    """
    cdef bytes_view wanted = target.view.model_version if target.view.model_version.size > 0 else target.version_hint
    cdef route_key key
    cdef const route* found
    key.name = <const char*> target.view.model_name.data
    key.name_size = target.view.model_name.size
    if key.name_size == 0:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model_name is missing")
        refuse(target, INVALID)
        return NULL
    if read_version(wanted, &key) != 0:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model_version is '%.*s'; expected a positive number or a label",
                 <int> min(wanted.size, SHOWN_NAME_BYTES), <const char*> wanted.data)
        refuse(target, INVALID)
        return NULL
    found = find_route(table, &key)
    if found == NULL:
        refuse_unknown(table, target, &key, wanted)
        return NULL
    if found.target == NULL and found.sleeper != NULL:
        sleeper[0] = found.sleeper
    elif found.target == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model '%s'%s%.*s is unavailable: %s", found.key.name,
                 b" version " if wanted.size > 0 else b"", <int> wanted.size, <const char*> wanted.data, found.reason)
        refuse(target, UNAVAILABLE)
    return found.target


cdef void refuse_unknown(const route_table* table, request* target, route_key* key, bytes_view wanted) noexcept nogil:
    cdef const char* word = b"version" if key.label_size == 0 else b"version labelled"
    cdef int shown = <int> min(key.name_size, SHOWN_NAME_BYTES)
    key.version, key.label, key.label_size = 0, NULL, 0
    if find_route(table, key) == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model '%.*s' is unknown", shown, key.name)
    else:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model '%.*s' has no %s %.*s", shown, key.name, word,
                 <int> wanted.size, <const char*> wanted.data)
    refuse(target, NOT_FOUND)


cdef int read_version(bytes_view text, route_key* key) noexcept nogil:
    """Put a version into a key: a positive number of at most 18 digits, a label, or 0 for an empty text. 0, or -1."""
    cdef size_t position
    key.version, key.label, key.label_size = 0, NULL, 0
    if text.size > 0 and is_letter(text.data[0]):
        # Whether it has the form of a label is settled by whether there is one of that name.
        key.label, key.label_size = <const char*> text.data, text.size
        return 0 if text.size <= MAX_LABEL_BYTES else -1
    if text.size > 18:
        return -1
    for position in range(text.size):
        if text.data[position] < 48 or text.data[position] > 57:
            return -1
        key.version = key.version * 10 + (text.data[position] - 48)
    return 0 if key.version > 0 or text.size == 0 else -1


cdef bint is_letter(unsigned char byte) noexcept nogil:
    """An ASCII letter or an underscore."""
    return 97 <= (byte | 32) <= 122 or byte == 95


# ---- a caller that waits


cdef struct blocking_wait:
    pthread_mutex_t lock
    pthread_cond_t finished
    bint done


cdef void infer_and_wait(engine_core* core, batcher* target, request* asked) noexcept nogil:
    """Submit a request, to `target` or where it says if that is NULL, and sleep until it is settled."""
    cdef blocking_wait wait
    pthread_mutex_init(&wait.lock, NULL)
    pthread_cond_init(&wait.finished, NULL)
    wait.done = False
    asked.context = &wait
    asked.done = end_wait
    if target == NULL:
        submit_request(core, asked)
    else:
        offer_request(target, asked)
    pthread_mutex_lock(&wait.lock)
    while not wait.done:
        pthread_cond_wait(&wait.finished, &wait.lock)
    pthread_mutex_unlock(&wait.lock)
    pthread_mutex_destroy(&wait.lock)
    pthread_cond_destroy(&wait.finished)


cdef void end_wait(request* finished) noexcept nogil:
    cdef blocking_wait* wait = <blocking_wait*> finished.context
    pthread_mutex_lock(&wait.lock)
    wait.done = True
    pthread_cond_signal(&wait.finished)
    pthread_mutex_unlock(&wait.lock)
