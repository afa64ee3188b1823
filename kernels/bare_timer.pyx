"""Measures how late times are kept, by a bare timerfd and by the engine: for measurements only.

All without the GIL, so that nothing of Python's is in the figures.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.time cimport itimerspec

from kernels.awaited_end cimport await_end, awaited_end, bring_end, open_end
from kernels.dispatch cimport close_request, engine_core, open_request, submit_request
from kernels.engine cimport Engine
from kernels.request cimport request
from kernels.status cimport EXPIRED
from kernels.sync cimport CLOCK_MONOTONIC, monotonic_ns

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


cdef struct timed_end:
    awaited_end end
    int64_t ended_ns


def expire_request(Engine engine not None, bytes message not None, int64_t delay_us):
    """Submit a request that waits until its deadline; return how late it was settled, in nanoseconds.

    Raises
    ------
    RuntimeError
        It did not expire in the queue.
    """
    cdef request* asked = open_request(engine.core)
    cdef timed_end settled
    cdef int64_t late_ns
    if asked == NULL:
        raise MemoryError
    asked.message = <const uint8_t*> <const char*> message
    asked.message_size = len(message)
    asked.deadline_ns = monotonic_ns() + delay_us * 1000
    asked.context = &settled
    asked.done = note_end
    with nogil:
        open_end(&settled.end)
        submit_request(engine.core, asked)
        await_end(&settled.end)
    late_ns = settled.ended_ns - asked.deadline_ns
    code, text = asked.error.code, decode_error(asked.error.text)
    close_request(engine.core, asked)
    if code != EXPIRED or late_ns < 0:
        raise RuntimeError(f"the request did not expire in the queue: {text if code else 'it was answered'}")
    return late_ns


cdef void note_end(request* asked) noexcept nogil:
    cdef timed_end* settled = <timed_end*> asked.context
    settled.ended_ns = monotonic_ns()
    bring_end(&settled.end)
