"""The data plane's way in: decode, find the batcher, check, admit; from any thread, without the GIL.

A batcher is found through an immutable table inside a read section: no lock, no reference count, and nothing found is
freed before the section has been left.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, strlen

from kernels.awaited_end cimport await_end, awaited_end, bring_end, open_end
from kernels.batcher cimport batcher, cancel_request, settle_request
from kernels.batcher_counts cimport count_refusal
from kernels.cached_answers cimport find_answer
from kernels.codec cimport (
    DECODE_LIMIT, DECODE_NO_MEMORY, OWNER_REQUEST, PARAMETER_BOOL, PARAMETER_INT64, PARAMETER_UINT64, bytes_view,
    decode_request, find_parameter, parameter_view,
)
from kernels.ensemble_plan cimport ensemble_plan
from kernels.ensemble_run cimport cancel_ensemble, start_ensemble
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.queueing cimport admit_request
from kernels.request cimport QUEUED, RUNNING, give_back_request, request, take_request
from kernels.routes cimport find_route, route, route_key, route_table
from kernels.sequence_id cimport read_turn
from kernels.signature cimport bind_request
from kernels.status cimport EXHAUSTED, EXPIRED, INVALID, NOT_FOUND, OK, UNAVAILABLE
from kernels.sync cimport int_load, monotonic_ns, pointer_load, section_enter, section_leave
from kernels.version_sequences cimport keeps_sequence

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
    cdef int phase
    cdef const route* found
    cdef batcher* elder = NULL
    submitted.arrival_ns = monotonic_ns()
    if decode_message(submitted) != 0 or (submitted.view.n_parameters > 0 and read_parameters(submitted) != 0):
        settle_request(submitted)
        return
    phase = section_enter(&core.sections)
    found = route_request(<route_table*> pointer_load(&core.table), submitted)
    if pointer_load(&core.elders) != NULL:
        elder = find_elder(<const elder_list*> pointer_load(&core.elders), found, submitted)
    if elder != NULL:
        serve_request(core, elder, NULL, submitted)
    elif found != NULL:
        serve_request(core, found.target, found.plan, submitted)
    else:
        settle_request(submitted)
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
    if int_load(&unwanted.state) in (QUEUED, RUNNING):
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
    elif plan != NULL:
        start_ensemble(&core.requests, plan, submitted)
    elif target.cache != NULL and find_answer(target, submitted):
        settle_request(submitted)
    else:
        admit_request(target, submitted)


cdef int check_request(batcher* target, request* submitted) noexcept nogil:
    """Bind a decoded request to the version that it goes to. 0, or -1 with its error set."""
    if bind_request(&target.accepted, submitted) != 0 or check_deadline(submitted) != 0:
        return -1
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
    """Return what serves the model and version that a decoded request names, or NULL with its error set."""
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
    if found.target == NULL:
        snprintf(target.error.text, FAILURE_TEXT_BYTES, "model '%s'%s%.*s is unavailable: %s", found.key.name,
                 b" version " if wanted.size > 0 else b"", <int> wanted.size, <const char*> wanted.data, found.reason)
        refuse(target, UNAVAILABLE)
        return NULL
    return found


cdef batcher* find_elder(const elder_list* elders, const route* found, request* submitted) noexcept nogil:
    """Return which version that left the table has the request's sequence, or NULL: also when `found` has it.

    The error of a request that `found` is nothing for stays as it is.
    """
    cdef failure routed = submitted.error
    cdef batcher* target = found.target if found != NULL else NULL
    cdef batcher* elder = NULL
    cdef int32_t index
    if elders == NULL or (target != NULL and target.sequences != NULL and keeps_sequence(target, submitted)):
        submitted.error = routed
        return NULL
    for index in range(elders.count):
        if elder == NULL and is_wanted(elders.members[index], submitted) and keeps_sequence(
                elders.members[index], submitted):
            elder = elders.members[index]
    submitted.error = routed
    if elder != NULL:
        submitted.error.code = OK
    return elder


cdef bint is_wanted(const batcher* elder, const request* submitted) noexcept nogil:
    """Whether a request names the model of a version, and not another version by its number."""
    cdef bytes_view model = submitted.view.model_name
    cdef bytes_view wanted = submitted.view.model_version
    cdef route_key key
    if wanted.size == 0:
        wanted = submitted.version_hint
    if elder.served.model_size != model.size or memcmp(elder.served.model, model.data, model.size) != 0:
        return False
    return read_version(wanted, &key) == 0 and (key.version == 0 or key.version == elder.version)


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


# ---- a caller that waits


cdef void infer_and_wait(engine_core* core, batcher* target, request* asked) noexcept nogil:
    """Submit a request, to `target` or where it says if that is NULL, and sleep until it is settled."""
    cdef awaited_end settled
    open_end(&settled)
    asked.context = &settled
    asked.done = end_wait
    if target == NULL:
        submit_request(core, asked)
    else:
        offer_request(target, asked)
    await_end(&settled)


cdef void end_wait(request* finished) noexcept nogil:
    bring_end(<awaited_end*> finished.context)
