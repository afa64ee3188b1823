"""Measures how late times are kept, by a bare timerfd and by the engine: for measurements only.

All without the GIL, so that nothing of Python's is in the figures.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.time cimport itimerspec

from kernels.dispatch cimport close_request, engine_core, open_request, submit_request
from kernels.engine cimport Engine
from kernels.request cimport request
from kernels.status cimport EXPIRED
from kernels.sync cimport (
    CLOCK_MONOTONIC, monotonic_ns, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t,
    pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t,
    pthread_mutex_unlock,
)

from kernels.runtime import decode_error

cdef extern from "<sys/timerfd.h>" nogil:
    int TFD_CLOEXEC
    int TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags) noexcept
    int timerfd_settime(int descriptor, int flags, const itimerspec* new, itimerspec* old) noexcept

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int descriptor, void* data, size_t size) noexcept
    int close(int descriptor) noexcept


def fire_timerfd(int64_t delay_us):
    """Sleep on a timerfd; return how late the sleep ended, in nanoseconds."""
    cdef int descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)
    cdef itimerspec setting
    cdef int64_t due_ns, late_ns
    cdef uint64_t fired
    if descriptor < 0 or delay_us < 1:
        raise ValueError("delay_us must be at least 1, and a descriptor be free")
    with nogil:
        due_ns = monotonic_ns() + delay_us * 1000
        setting.it_interval.tv_sec = setting.it_interval.tv_nsec = 0
        setting.it_value.tv_sec = due_ns // 1000000000
        setting.it_value.tv_nsec = due_ns % 1000000000
        timerfd_settime(descriptor, TFD_TIMER_ABSTIME, &setting, NULL)
        read(descriptor, &fired, sizeof(fired))
        late_ns = monotonic_ns() - due_ns
        close(descriptor)
    return late_ns


cdef struct awaited:
    pthread_mutex_t lock
    pthread_cond_t ended
    int64_t ended_ns             # 0 until then


def expire_request(Engine engine not None, bytes message not None, int64_t delay_us):
    """Submit a request that waits until its deadline; return how late it was settled, in nanoseconds.

    Raises
    ------
    RuntimeError
        It did not expire in the queue.
    """
    cdef request* asked = open_request(engine.core)
    cdef awaited end
    cdef int64_t late_ns
    if asked == NULL:
        raise MemoryError
    asked.message = <const uint8_t*> <const char*> message
    asked.message_size = len(message)
    asked.deadline_ns = monotonic_ns() + delay_us * 1000
    asked.context = &end
    asked.done = note_end
    with nogil:
        wait_for_end(engine.core, asked, &end)
    late_ns = end.ended_ns - asked.deadline_ns
    code, text = asked.error.code, decode_error(asked.error.text)
    close_request(engine.core, asked)
    if code != EXPIRED or late_ns < 0:
        raise RuntimeError(f"the request did not expire in the queue: {text if code else 'it was answered'}")
    return late_ns


cdef void wait_for_end(engine_core* core, request* asked, awaited* end) noexcept nogil:
    pthread_mutex_init(&end.lock, NULL)
    pthread_cond_init(&end.ended, NULL)
    end.ended_ns = 0
    submit_request(core, asked)
    pthread_mutex_lock(&end.lock)
    while end.ended_ns == 0:
        pthread_cond_wait(&end.ended, &end.lock)
    pthread_mutex_unlock(&end.lock)
    pthread_mutex_destroy(&end.lock)
    pthread_cond_destroy(&end.ended)


cdef void note_end(request* settled) noexcept nogil:
    cdef awaited* end = <awaited*> settled.context
    pthread_mutex_lock(&end.lock)
    end.ended_ns = monotonic_ns()
    pthread_cond_signal(&end.ended)
    pthread_mutex_unlock(&end.lock)
