"""The data plane's way in: decode, find the batcher, check, admit; from any thread, without the GIL.

A batcher is found through an immutable table inside a read section: no lock, no reference count, and nothing found is
freed before the section has been left.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport strlen

from kernels.admittance cimport check_admission
from kernels.batcher cimport batcher, cancel_request, settle_request
from kernels.batcher_counts cimport count_refusal
from kernels.cached_answers cimport find_answer
from kernels.codec cimport (
    DECODE_LIMIT, DECODE_NO_MEMORY, OWNER_REQUEST, PARAMETER_BOOL, PARAMETER_INT64, PARAMETER_UINT64, bytes_view,
    decode_request, find_parameter, parameter_view,
)
from kernels.elders cimport elder_list, find_elder
from kernels.ensemble_plan cimport ensemble_plan
from kernels.ensemble_run cimport cancel_ensemble, start_ensemble
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.idempotency cimport leave_answer
from kernels.parking cimport cancel_parked, park_request
from kernels.queueing cimport admit_request
from kernels.request cimport JOINED, MOVING, PARKED, QUEUED, RUNNING, give_back_request, request, take_request
from kernels.routes cimport find_route, route, route_key, route_table
from kernels.sequence_id cimport read_turn
from kernels.settling cimport fail_request
from kernels.signature cimport bind_request
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, INVALID, NOT_FOUND, UNAVAILABLE
from kernels.sync cimport int_exchange, int_load, monotonic_ns, pointer_load, section_enter, section_leave

cdef enum:
    SHOWN_NAME_BYTES = 100     # of a name that a client sent, in an error
    MAX_LABEL_BYTES = 64       # as service/version_policy.py has it

# A request's parameters: true has the reply say how long the request waited and ran; 1 is the most urgent, and 0 as
# urgent as the model has it; how long it may wait in the queue, in microseconds, and 0 as long as the model has it.
cdef const char* TIMING = b"server_timing"
cdef const char* PRIORITY = b"priority"
cdef const char* TIMEOUT = b"timeout"


cdef request* open_request(engine_core* core) noexcept nogil:
    """Return a fresh request for the transport to fill in, or NULL without memory."""
    return take_request(&core.requests)


cdef void close_request(engine_core* core, request* used) noexcept nogil:
    """Give a request back after its `done` was called, or before it was submitted."""
    give_back_request(&core.requests, used)


cdef void submit_request(engine_core* core, request* submitted) noexcept nogil:
    """Decode, check and queue a request. Its `done` is called exactly once, perhaps before this returns."""
    if read_request(submitted) == 0:
        place_request(core, submitted)
    else:
        settle_request(submitted)


cdef int read_request(request* submitted) noexcept nogil:
    """Decode and check a request, as far as that does not depend on who serves it. 0, or -1 with its error set."""
    submitted.arrival_ns = monotonic_ns()
    if decode_message(submitted) != 0:
        return -1
    if submitted.view.n_parameters > 0 and read_parameters(submitted) != 0:
        return -1
    return check_admission(submitted) if submitted.admitted != NULL else 0


cdef void place_request(engine_core* core, request* decoded) noexcept nogil:
    """Have a decoded request served where the table leads, or wait for its model there; or settle it as refused."""
    cdef int phase = section_enter(&core.sections)
    cdef const route* found = route_request(<route_table*> pointer_load(&core.table), decoded)
    cdef batcher* elder = NULL
    if pointer_load(&core.elders) != NULL:
        elder = find_keeper(<const elder_list*> pointer_load(&core.elders), found, decoded)
    if elder != NULL:
        serve_request(core, elder, NULL, decoded)
    elif found == NULL:
        settle_request(decoded)
    elif found.target != NULL:
        serve_request(core, found.target, found.plan, decoded)
    elif check_deadline(decoded) != 0 or park_request(&core.lot, found.sleeper, decoded) != 0:
        settle_request(decoded)
    section_leave(&core.sections, phase)


cdef void offer_request(batcher* target, request* submitted) noexcept nogil:
    """As submit_request, to a version that no table leads to, whatever the message names; the caller keeps it alive."""
    submitted.arrival_ns = monotonic_ns()
    if decode_message(submitted) == 0 and check_request(target, submitted) == 0:
        admit_request(target, submitted)
    else:
        settle_request(submitted)


cdef void withdraw_request(engine_core* core, request* unwanted) noexcept nogil:
    """Cancel a submitted request that has not been given back; nothing happens when its reply stands already."""
    cdef int phase = section_enter(&core.sections)
    cdef int state = int_load(&unwanted.state)
    if state == MOVING:
        int_exchange(&unwanted.withdrawn, True)
        # Unless it is on its way still, whoever took it in may not have seen the mark.
        state = int_load(&unwanted.state)
    if state == PARKED:
        cancel_parked(&core.lot, unwanted)
    elif state == JOINED:
        if leave_answer(&core.keyed, unwanted):
            fail_request(unwanted, CANCELLED, b"the request was cancelled while it waited for the answer under its key")
    elif state in (QUEUED, RUNNING):
        if unwanted.ensemble_run == NULL:
            cancel_request(unwanted)
        else:
            cancel_ensemble(unwanted)
    section_leave(&core.sections, phase)


cdef void serve_request(engine_core* core, batcher* target, ensemble_plan* plan, request* submitted) noexcept nogil:
    """Answer a decoded request by the version that it goes to: from the cache, by its steps, or by a run."""
    if check_request(target, submitted) != 0:
        count_refusal(target, submitted)
        settle_request(submitted)
    elif target.cache != NULL and find_answer(target, plan.serial if plan != NULL else target.serial, submitted):
        settle_request(submitted)
    elif plan != NULL:
        start_ensemble(&core.requests, plan, submitted)
    else:
        admit_request(target, submitted)


cdef int check_request(batcher* target, request* submitted) noexcept nogil:
    """Bind a decoded request to the version that it goes to. 0, or -1 with its error set."""
    if bind_request(&target.accepted, submitted) != 0 or check_deadline(submitted) != 0:
        return -1
    if submitted.is_for_key and submitted.n_regions > 0:
        snprintf(submitted.error.text, FAILURE_TEXT_BYTES, "idempotency-key: expected tensors in the message, for shared "
                 "memory may have changed when the request comes again")
        return refuse(submitted, INVALID)
    if target.sequences == NULL:
        return 0
    return read_turn(target.accepted.sequences, target.sequences.seed, submitted)


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
    cdef uint64_t timeout_us = 0
    if found != NULL:
        if found.kind != PARAMETER_BOOL:
            snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' is not a bool", TIMING)
            return refuse(target, INVALID)
        target.wants_timing = found.value.as_bool
    if read_number(target, PRIORITY, &target.priority) != 0 or read_number(target, TIMEOUT, &timeout_us) != 0:
        return -1
    # What the clock cannot hold is for ever.
    target.timeout_ns = <int64_t> timeout_us * 1000 if timeout_us <= <uint64_t> INT64_MAX // 1000 else 0
    return 0


cdef int read_number(request* target, const char* name, uint64_t* value) noexcept nogil:
    """Read a parameter of the request that is a whole number from 0 on, if it is there. 0, or -1 with the error set."""
    cdef const parameter_view* found = find_parameter(&target.view, OWNER_REQUEST, name, strlen(name))
    if found == NULL:
        return 0
    if found.kind != PARAMETER_UINT64 and (found.kind != PARAMETER_INT64 or found.value.as_int64 < 0):
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "parameter '%s' is not a whole number of at least 0", name)
        return refuse(target, INVALID)
    value[0] = found.value.as_uint64
    return 0


cdef int check_deadline(request* target) noexcept nogil:
    if target.deadline_ns == 0 or target.deadline_ns > target.arrival_ns:
        return 0
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "Deadline Exceeded before the request arrived")
    return refuse(target, EXPIRED)


cdef const route* route_request(const route_table* table, request* target) noexcept nogil:
    """Return what serves the model and version that a decoded request names, now or once it is in memory.

    NULL with its error set where nothing does.
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
        refuse_version(target, wanted)
        return NULL
    found = find_route(table, &key)
    if found == NULL:
        refuse_unknown(table, target, &key, wanted)
        return NULL
    if found.target == NULL and found.sleeper == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model '%s'%s%.*s is unavailable: %s", found.key.name,
                 b" version " if wanted.size > 0 else b"", <int> wanted.size, <const char*> wanted.data, found.reason)
        refuse(target, UNAVAILABLE)
        return NULL
    return found


cdef batcher* find_keeper(const elder_list* elders, const route* found, request* submitted) noexcept nogil:
    """Return the version that left the table and has the sequence of a request, which may name it or leave that open."""
    cdef bytes_view wanted = submitted.view.model_version
    cdef route_key key
    if wanted.size == 0:
        wanted = submitted.version_hint
    if read_version(wanted, &key) != 0:
        return NULL
    return find_elder(elders, found.target if found != NULL else NULL, key.version, submitted)


cdef void refuse_unknown(const route_table* table, request* target, route_key* key, bytes_view wanted) noexcept nogil:
    """Triton's words, as its clients look for them; service/repository.py has the same."""
    cdef bint is_label = key.label_size > 0
    cdef int shown = <int> min(key.name_size, SHOWN_NAME_BYTES)
    key.version, key.label, key.label_size = 0, NULL, 0
    if find_route(table, key) == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "Request for unknown model: '%.*s' is not found", shown,
                 key.name)
    elif is_label:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "failed to get model version from specified version string "
                 "'%.*s': model '%.*s' has no such label", <int> wanted.size, <const char*> wanted.data, shown, key.name)
    else:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "Request for unknown model: '%.*s' version %.*s is not found",
                 shown, key.name, <int> wanted.size, <const char*> wanted.data)
    refuse(target, NOT_FOUND)


cdef void refuse_version(request* target, bytes_view wanted) noexcept nogil:
    snprintf(target.error.text, FAILURE_TEXT_BYTES, "failed to get model version from specified version string '%.*s': "
             "expected a positive number or a label", <int> min(wanted.size, SHOWN_NAME_BYTES),
             <const char*> wanted.data)
    refuse(target, INVALID)


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
