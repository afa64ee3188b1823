"""Runs ready tasks on a bounded set of threads, first come first served, and rings alarms at their time.

No thread here ever takes the GIL. Workers are started on demand, up to the limit, when work is ready and none is idle.

Two threads share the timer. The one on watch rings an alarm; when that makes a task ready and a worker is idle, it has the
other one take over and runs the task itself: waking the worker would take longer than all else between a delay's end and
the run (bench: delays).
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, realloc

from kernels.sync cimport (
    CLOCK_MONOTONIC, int_load, monotonic_ns, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init,
    pthread_cond_signal, pthread_cond_timedwait, pthread_cond_wait, pthread_condattr_destroy, pthread_condattr_init,
    pthread_condattr_setclock, pthread_condattr_t, pthread_create, pthread_join, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, pthread_setname_np, pthread_t, timespec,
)

# A thread has the name of whoever started it, until it is given its own.
cdef const char* WORKER_NAME = b"sluice-worker"
cdef const char* TIMER_NAME = b"sluice-timer"

cdef extern from *:
    """
    static _Thread_local void *collected;
    static _Thread_local void *deferred;
    """
    void* collected  # task_list* of the calling thread, NULL unless it runs inline tasks itself
    void* deferred   # likewise, NULL unless it keeps back what it schedules

cdef extern from *:
    """
    static _Thread_local void *rung;
    """
    void* rung       # of a timer's thread that rings an alarm: where the task goes that becomes ready, a task**

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK
    int prctl(int option, unsigned long argument, unsigned long, unsigned long, unsigned long) noexcept


cdef int open_executor(executor* pool, int32_t max_threads) noexcept nogil:
    """Start the timer and one worker; others follow when there is work. 0, or -1 without memory or threads."""
    cdef pthread_condattr_t monotonic
    cdef int index
    pool.max_threads = max_threads
    pool.handles = <pthread_t*> calloc(max_threads, sizeof(pthread_t))
    if pool.handles == NULL:
        return -1
    pthread_mutex_init(&pool.lock, NULL)
    pthread_cond_init(&pool.work, NULL)
    pthread_mutex_init(&pool.timer_lock, NULL)
    pthread_cond_init(&pool.timer_rang, NULL)
    pthread_cond_init(&pool.timer_relief, NULL)
    pthread_condattr_init(&monotonic)
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC)
    pthread_cond_init(&pool.timer_wake, &monotonic)
    pthread_condattr_destroy(&monotonic)
    for index in range(TIMER_THREADS):
        if pthread_create(&pool.timers[index], NULL, run_timer, pool) != 0:
            stop_timers(pool, index)
            free_executor(pool)
            return -1
        pthread_setname_np(pool.timers[index], TIMER_NAME)
    if start_worker(pool) != 0:
        close_executor(pool)
        return -1
    return 0


cdef void close_executor(executor* pool) noexcept nogil:
    """Stop and join every thread. Every task must be done: nothing ready, no alarm set."""
    cdef int32_t index
    if pool.handles == NULL:
        return
    pthread_mutex_lock(&pool.lock)
    pool.stopping = True
    pthread_cond_broadcast(&pool.work)
    pthread_mutex_unlock(&pool.lock)
    for index in range(pool.threads):
        pthread_join(pool.handles[index], NULL)
    stop_timers(pool, TIMER_THREADS)
    free_executor(pool)


cdef void stop_timers(executor* pool, int started) noexcept nogil:
    cdef int index
    pthread_mutex_lock(&pool.timer_lock)
    pool.timer_stopping = True
    pthread_cond_signal(&pool.timer_wake)
    pthread_cond_broadcast(&pool.timer_relief)
    pthread_mutex_unlock(&pool.timer_lock)
    for index in range(started):
        pthread_join(pool.timers[index], NULL)


cdef void free_executor(executor* pool) noexcept nogil:
    pthread_mutex_destroy(&pool.lock)
    pthread_cond_destroy(&pool.work)
    pthread_mutex_destroy(&pool.timer_lock)
    pthread_cond_destroy(&pool.timer_wake)
    pthread_cond_destroy(&pool.timer_rang)
    pthread_cond_destroy(&pool.timer_relief)
    free(pool.handles)
    free(pool.heap)
    pool.handles = NULL
    pool.heap = NULL


# ---- workers


cdef void schedule(executor* pool, task* ready) noexcept nogil:
    """Append a task to the ready list, or to the calling thread's own. It must not be in a list already."""
    ready.next = NULL
    # Not always under the lock that guards it: a late look only has the task run somewhere else.
    if collected != NULL and int_load(&ready.is_inline):
        append_task(<task_list*> collected, ready)
        return
    if deferred != NULL:
        append_task(<task_list*> deferred, ready)
        return
    if rung != NULL and (<task**> rung)[0] == NULL:
        (<task**> rung)[0] = ready
        return
    pthread_mutex_lock(&pool.lock)
    if pool.last == NULL:
        pool.first = ready
    else:
        pool.last.next = ready
    pool.last = ready
    pool.ready += 1
    # Counted against all tasks in the list: an idle worker may have been signalled for an earlier one.
    if pool.ready > pool.idle and pool.threads < pool.max_threads:
        # Should the system refuse another thread, those there are take the task when they come free.
        start_worker(pool)
    pthread_cond_signal(&pool.work)
    pthread_mutex_unlock(&pool.lock)


cdef int start_worker(executor* pool) noexcept nogil:
    if pthread_create(&pool.handles[pool.threads], NULL, run_worker, pool) != 0:
        return -1
    pthread_setname_np(pool.handles[pool.threads], WORKER_NAME)
    pool.threads += 1
    return 0


cdef void* run_worker(void* argument) noexcept nogil:
    cdef executor* pool = <executor*> argument
    cdef task* ready
    while True:
        ready = next_task(pool)
        if ready == NULL:
            return NULL
        ready.run(ready)


cdef task* next_task(executor* pool) noexcept nogil:
    """Wait for a task; NULL when the executor stops."""
    cdef task* ready
    pthread_mutex_lock(&pool.lock)
    while pool.first == NULL and not pool.stopping:
        pool.idle += 1
        pthread_cond_wait(&pool.work, &pool.lock)
        pool.idle -= 1
    ready = pool.first
    if ready != NULL:
        pool.ready -= 1
        pool.first = ready.next
        if pool.first == NULL:
            pool.last = NULL
    pthread_mutex_unlock(&pool.lock)
    return ready


# ---- threads that run tasks themselves


cdef void collect_tasks(task_list* mine) noexcept nogil:
    """Have the calling thread put the inline tasks that it schedules into a list of its own; NULL ends that.

    Whoever collects must take and run them: nobody else will.
    """
    global collected
    collected = mine


cdef void append_task(task_list* mine, task* ready) noexcept nogil:
    if mine.last == NULL:
        mine.first = ready
    else:
        mine.last.next = ready
    mine.last = ready


cdef task* take_collected(task_list* mine) noexcept nogil:
    """Return the oldest task of a list, or NULL."""
    cdef task* ready = mine.first
    if ready != NULL:
        mine.first = ready.next
        if mine.first == NULL:
            mine.last = NULL
    return ready


# ---- tasks that are to wait for others


cdef void defer_tasks(task_list* mine) noexcept nogil:
    """Have the calling thread keep back what it schedules, but for inline tasks, until it calls schedule_deferred."""
    global deferred
    deferred = mine


cdef void schedule_deferred(executor* pool, task_list* mine) noexcept nogil:
    """Schedule what was kept back, and keep nothing back from now on."""
    global deferred
    cdef task* ready = take_collected(mine)
    deferred = NULL
    while ready != NULL:
        schedule(pool, ready)
        ready = take_collected(mine)


# ---- alarms: a binary heap of tasks, each at most once


cdef int reserve_alarm(executor* pool, int32_t tasks) noexcept nogil:
    """Make room for an alarm of each of `tasks` tasks, so that set_alarm cannot fail. 0, or -1 without memory."""
    cdef task** larger
    cdef int failed = 0
    pthread_mutex_lock(&pool.timer_lock)
    if tasks > pool.capacity:
        larger = <task**> realloc(pool.heap, (2 * tasks + 1) * sizeof(task*))
        if larger == NULL:
            failed = -1
        else:
            pool.heap = larger
            pool.capacity = 2 * tasks
    pthread_mutex_unlock(&pool.timer_lock)
    return failed


cdef void set_alarm(executor* pool, task* sleeper, int64_t due_ns) noexcept nogil:
    """Ring at `due_ns`, or at the earlier time that is set already."""
    pthread_mutex_lock(&pool.timer_lock)
    if sleeper.place == 0:
        pool.alarms += 1
        sleeper.due_ns = due_ns
        rise(pool, sleeper, pool.alarms)
    elif due_ns < sleeper.due_ns:
        sleeper.due_ns = due_ns
        rise(pool, sleeper, sleeper.place)
    if pool.heap[1] == sleeper:
        pthread_cond_signal(&pool.timer_wake if pool.is_watched else &pool.timer_relief)
    pthread_mutex_unlock(&pool.timer_lock)


cdef void drop_alarm(executor* pool, task* sleeper) noexcept nogil:
    """Remove a task's alarm and wait until its ring, should it run now, has returned."""
    pthread_mutex_lock(&pool.timer_lock)
    while pool.ringing == sleeper:
        pthread_cond_wait(&pool.timer_rang, &pool.timer_lock)
    if sleeper.place != 0:
        remove_alarm(pool, sleeper)
    pthread_mutex_unlock(&pool.timer_lock)


cdef void remove_alarm(executor* pool, task* sleeper) noexcept nogil:
    cdef task* moved = pool.heap[pool.alarms]
    cdef int32_t place = sleeper.place
    pool.alarms -= 1
    sleeper.place = 0
    if moved == sleeper:
        return
    if place > 1 and moved.due_ns < pool.heap[place // 2].due_ns:
        rise(pool, moved, place)
    else:
        sink(pool, moved, place)


cdef void rise(executor* pool, task* moved, int32_t place) noexcept nogil:
    """Put a task at `place` or above it, moving later ones down. Places count from 1."""
    while place > 1 and moved.due_ns < pool.heap[place // 2].due_ns:
        pool.heap[place] = pool.heap[place // 2]
        pool.heap[place].place = place
        place = place // 2
    pool.heap[place] = moved
    moved.place = place


cdef void sink(executor* pool, task* moved, int32_t place) noexcept nogil:
    """Put a task at `place` or below it, moving earlier ones up."""
    cdef int32_t child
    while 2 * place <= pool.alarms:
        child = 2 * place
        if child < pool.alarms and pool.heap[child + 1].due_ns < pool.heap[child].due_ns:
            child += 1
        if moved.due_ns <= pool.heap[child].due_ns:
            break
        pool.heap[place] = pool.heap[child]
        pool.heap[place].place = place
        place = child
    pool.heap[place] = moved
    moved.place = place


cdef void* run_timer(void* argument) noexcept nogil:
    """Keep watch, or run what an alarm of this thread's watch brought about, or wait to take over."""
    cdef executor* pool = <executor*> argument
    cdef task* ready
    # By default the system may let a sleep last 50 µs longer.
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    pthread_mutex_lock(&pool.timer_lock)
    while not pool.timer_stopping:
        if pool.is_watched:
            pool.is_relieved = True
            pthread_cond_wait(&pool.timer_relief, &pool.timer_lock)
            pool.is_relieved = False
            continue
        pool.is_watched = True
        ready = watch_alarms(pool)
        pool.is_watched = False
        if ready != NULL:
            if pool.alarms > 0:
                # Else whoever sets the next alarm wakes the other: it would only be in the way.
                pthread_cond_signal(&pool.timer_relief)
            pthread_mutex_unlock(&pool.timer_lock)
            ready.run(ready)
            pthread_mutex_lock(&pool.timer_lock)
    pthread_mutex_unlock(&pool.timer_lock)
    return NULL


cdef task* watch_alarms(executor* pool) noexcept nogil:
    """Ring alarms until one brings about a task that is best run here; NULL when the timer stops. Under its lock."""
    cdef task* due
    cdef task* ready
    cdef bint is_next
    while not pool.timer_stopping:
        if pool.alarms == 0:
            pthread_cond_wait(&pool.timer_wake, &pool.timer_lock)
        elif pool.heap[1].due_ns > monotonic_ns():
            wait_until(pool, pool.heap[1].due_ns)
        else:
            due = pool.heap[1]
            remove_alarm(pool, due)
            pool.ringing = due
            pthread_mutex_unlock(&pool.timer_lock)
            ready = ring(due)
            is_next = ready != NULL and has_idle_worker(pool)
            pthread_mutex_lock(&pool.timer_lock)
            pool.ringing = NULL
            pthread_cond_broadcast(&pool.timer_rang)
            if is_next and pool.is_relieved:
                return ready
            if ready != NULL:
                pthread_mutex_unlock(&pool.timer_lock)
                schedule(pool, ready)
                pthread_mutex_lock(&pool.timer_lock)
    return NULL


cdef task* ring(task* due) noexcept nogil:
    """Ring an alarm; return the task that it made ready, which nobody else runs, or NULL."""
    global rung
    cdef task* ready = NULL
    rung = &ready
    due.ring(due)
    rung = NULL
    return ready


cdef bint has_idle_worker(executor* pool) noexcept nogil:
    """Whether one more task could run at once, ahead of none that is ready."""
    cdef bint idle
    pthread_mutex_lock(&pool.lock)
    idle = pool.ready < pool.idle or (pool.ready == 0 and pool.threads < pool.max_threads)
    pthread_mutex_unlock(&pool.lock)
    return idle


cdef void wait_until(executor* pool, int64_t due_ns) noexcept nogil:
    cdef timespec until
    until.tv_sec = due_ns // 1000000000
    until.tv_nsec = due_ns % 1000000000
    pthread_cond_timedwait(&pool.timer_wake, &pool.timer_lock, &until)
