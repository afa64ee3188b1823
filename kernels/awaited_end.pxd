"""An end that one thread sleeps for and another one brings about, once."""

from kernels.sync cimport (
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)


cdef struct awaited_end:
    pthread_mutex_t lock
    pthread_cond_t changed
    bint has_come


cdef inline void open_end(awaited_end* made) noexcept nogil:
    pthread_mutex_init(&made.lock, NULL)
    pthread_cond_init(&made.changed, NULL)
    made.has_come = False


cdef inline void bring_end(awaited_end* awaited) noexcept nogil:
    """Wake who sleeps; the end may be gone once this returns."""
    pthread_mutex_lock(&awaited.lock)
    awaited.has_come = True
    pthread_cond_signal(&awaited.changed)
    pthread_mutex_unlock(&awaited.lock)


cdef inline void await_end(awaited_end* awaited) noexcept nogil:
    """Sleep until the end has come, and close it."""
    pthread_mutex_lock(&awaited.lock)
    while not awaited.has_come:
        pthread_cond_wait(&awaited.changed, &awaited.lock)
    pthread_mutex_unlock(&awaited.lock)
    pthread_mutex_destroy(&awaited.lock)
    pthread_cond_destroy(&awaited.changed)
