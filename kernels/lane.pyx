"""A thread for one session: ONNX Runtime keeps memory for each thread that runs a GPU session, and frees none of it.

While the thread waits for the device, others prepare what it runs next and take care of what it has run.
"""

from kernels.sync cimport (
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait, pthread_create, pthread_join,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, pthread_setname_np,
)

cdef const char* THREAD_NAME = b"sluice-lane"    # what /proc and profilers show; 15 characters at most


cdef int open_lane(lane* made) noexcept nogil:
    """Start the thread. 0, or -1 when the system refuses it."""
    pthread_mutex_init(&made.lock, NULL)
    pthread_cond_init(&made.work, NULL)
    made.first = made.last = NULL
    made.stopping = False
    if pthread_create(&made.thread, NULL, run_lane, made) != 0:
        pthread_mutex_destroy(&made.lock)
        pthread_cond_destroy(&made.work)
        return -1
    pthread_setname_np(made.thread, THREAD_NAME)
    made.is_open = True
    return 0


cdef void close_lane(lane* used) noexcept nogil:
    """End the thread once it has run what it was given. A lane of zeros is fine."""
    if not used.is_open:
        return
    pthread_mutex_lock(&used.lock)
    used.stopping = True
    pthread_cond_signal(&used.work)
    pthread_mutex_unlock(&used.lock)
    pthread_join(used.thread, NULL)
    pthread_mutex_destroy(&used.lock)
    pthread_cond_destroy(&used.work)
    used.is_open = False


cdef void append_task(lane* used, task* ready) noexcept nogil:
    """Have a task run after those that are there. It must not be in a list already."""
    ready.next = NULL
    pthread_mutex_lock(&used.lock)
    if used.last == NULL:
        used.first = ready
    else:
        used.last.next = ready
    used.last = ready
    pthread_cond_signal(&used.work)
    pthread_mutex_unlock(&used.lock)


cdef void* run_lane(void* argument) noexcept nogil:
    cdef lane* home = <lane*> argument
    cdef task* ready
    while True:
        ready = wait_task(home)
        if ready == NULL:
            return NULL
        ready.run(ready)


cdef task* wait_task(lane* home) noexcept nogil:
    """Return the next task; NULL when the lane is closed and has none left."""
    cdef task* ready
    pthread_mutex_lock(&home.lock)
    while home.first == NULL and not home.stopping:
        pthread_cond_wait(&home.work, &home.lock)
    ready = home.first
    if ready != NULL:
        home.first = ready.next
        if home.first == NULL:
            home.last = NULL
    pthread_mutex_unlock(&home.lock)
    return ready
