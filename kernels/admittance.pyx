"""Refuses what a caller may not ask for: by the model and version that the engine would use, for each single request.

That is after decoding, so that of a `model_name` that comes twice the one that counts is looked at. A model that the
caller may not use is refused in the same words whether there is one of that name or not.
"""

from libc.stdio cimport snprintf

from kernels.codec cimport parameter_view
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.permit cimport MAY_INFER, MAY_PIN, MAY_SHARE_MEMORY, admission, find_actions, keep_model
from kernels.request cimport request
from kernels.status cimport EXHAUSTED, FORBIDDEN
from kernels.wire cimport bytes_view

cdef extern from "<string.h>" nogil:
    int memcmp(const void* one, const void* other, size_t size) noexcept

cdef enum:
    SHOWN_NAME_BYTES = 100     # of a name that a client sent, in an error
    REGION_KEY_BYTES = 20

cdef const char* REGION_KEY = b"shared_memory_region"


cdef int check_admission(request* asked) noexcept nogil:
    """Check a decoded request that has an admission. 0, or -1 with its error set."""
    cdef admission* admitted = asked.admitted
    cdef int missing
    if admitted.allowed == NULL:
        snprintf(asked.error.text, FAILURE_TEXT_BYTES, "nobody has said what the caller may do")
        return refuse(asked, FORBIDDEN)
    if admitted.allowed.refusal != NULL:
        snprintf(asked.error.text, FAILURE_TEXT_BYTES, "%s", admitted.allowed.refusal)
        return refuse(asked, FORBIDDEN)
    missing = find_needs(asked) & ~find_actions(admitted.allowed, asked.view.model_name)
    if missing != 0:
        return refuse_action(asked, missing)
    if admitted.is_forwarded and admitted.keeps_model:
        return check_stream(asked)
    return 0


cdef int find_needs(const request* asked) noexcept nogil:
    """Return the MAY_… bits that the request takes."""
    cdef int needs = MAY_INFER
    # The gateway's own header is its choice among a model's versions; anybody else's is the caller's.
    if asked.view.model_version.size > 0 or (asked.version_hint.size > 0 and not asked.admitted.is_forwarded):
        needs |= MAY_PIN
    if names_region(asked):
        needs |= MAY_SHARE_MEMORY
    return needs


cdef bint names_region(const request* asked) noexcept nogil:
    """Whether an input or an output is to lie in shared memory."""
    cdef const parameter_view* candidate
    cdef int place
    for place in range(asked.view.n_parameters):
        candidate = &asked.view.parameters[place]
        if candidate.key.size == REGION_KEY_BYTES and memcmp(candidate.key.data, REGION_KEY, REGION_KEY_BYTES) == 0:
            return True
    return False


cdef int refuse_action(request* asked, int missing) noexcept nogil:
    cdef bytes_view model = asked.view.model_name
    cdef const char* action = b"infer"
    if not missing & MAY_INFER:
        action = b"pin" if missing & MAY_PIN else b"shared_memory"
    snprintf(asked.error.text, FAILURE_TEXT_BYTES, "%s on model '%.*s': allowed by no role of the caller", action,
             <int> min(model.size, SHOWN_NAME_BYTES), <const char*> model.data)
    return refuse(asked, FORBIDDEN)


cdef int check_stream(request* asked) noexcept nogil:
    """Hold a stream that came through a gateway to the model of its first message, by which the gateway let it in."""
    cdef bytes_view model = asked.view.model_name
    cdef int outcome = keep_model(asked.admitted, model)
    if outcome == 0:
        return 0
    if outcome < 0:
        snprintf(asked.error.text, FAILURE_TEXT_BYTES, "no memory for the name of the stream's model")
        return refuse(asked, EXHAUSTED)
    snprintf(asked.error.text, FAILURE_TEXT_BYTES,
             "a stream through the gateway is of one model: expected '%.*s', the first message's, given '%.*s'",
             <int> min(asked.admitted.model.size, SHOWN_NAME_BYTES), <const char*> asked.admitted.model.data,
             <int> min(model.size, SHOWN_NAME_BYTES), <const char*> model.data)
    return refuse(asked, FORBIDDEN)


cdef int refuse(request* asked, int code) noexcept nogil:
    asked.error.code = code
    return -1
