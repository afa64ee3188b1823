"""Runs one request while its caller waits: for tests, warm-up and embedding."""

from libc.stdint cimport int64_t, uint8_t

from kernels.awaited_end cimport await_end, awaited_end, bring_end, open_end
from kernels.batcher cimport batcher
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, offer_request, open_request, submit_request
from kernels.request cimport request
from kernels.sync cimport deadline_after

from kernels.runtime import decode_error


class InferError(Exception):
    """A request failed; ``code`` is one of kernels.status, ``message`` is for the caller."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


cdef bytes call_and_wait(engine_core* core, batcher* target, bytes message, bytes version_hint, int64_t timeout_us):
    """Return the reply to a request, which goes to `target`, or where it says if that is NULL; InferError without one."""
    cdef request* asked = open_request(core)
    if asked == NULL:
        raise MemoryError
    asked.message = message
    asked.message_size = len(message)
    asked.version_hint = bytes_view(<const uint8_t*> <const char*> version_hint, len(version_hint))
    asked.deadline_ns = deadline_after(timeout_us) if timeout_us > 0 else 0
    try:
        with nogil:
            infer_and_wait(core, target, asked)
        if asked.error.code != 0:
            raise InferError(asked.error.code, decode_error(asked.error.text))
        return asked.reply[:asked.reply_size]
    finally:
        close_request(core, asked)


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
