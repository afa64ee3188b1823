"""Runs one request while its caller waits: for tests, warm-up and embedding."""

from libc.stdint cimport int64_t, uint8_t

from kernels.batcher cimport batcher
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, offer_request, open_request, submit_request
from kernels.request cimport request
from kernels.sync cimport (
    deadline_after, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)

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
