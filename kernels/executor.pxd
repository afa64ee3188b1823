"""Worker threads shared by all batchers, and a timer for their deadlines and delays.

A task is embedded as the first member of what it belongs to. Threads do not grow with models: a model that waits for
nothing costs none.
"""

from libc.stdint cimport int32_t, int64_t

from kernels.sync cimport pthread_cond_t, pthread_mutex_t, pthread_t


cdef enum:
    TIMER_THREADS = 2            # one keeps watch while the other runs what an alarm brought about


cdef struct task:
    task* next                                  # the ready list
    void (*run)(task* ready) noexcept nogil     # on a worker; the task may be gone once it returns
    void (*ring)(task* due) noexcept nogil      # on the timer thread
    int64_t due_ns                              # monotonic; meaningful while it is in the heap
    int32_t place                               # in the timer's heap plus 1; 0 when it has no alarm
    int is_inline                               # a bint: runs on the thread that schedules it, when that collects tasks


cdef struct task_list:                          # what a thread has collected and runs itself
    task* first
    task* last


cdef struct executor:
    pthread_mutex_t lock         # guards what follows up to the timer
    pthread_cond_t work
    task* first
    task* last
    int32_t ready                # tasks in the list
    int32_t idle                 # workers that wait, those signalled and not awake yet among them
    int32_t threads
    int32_t max_threads
    bint stopping
    pthread_t* handles
    pthread_mutex_t timer_lock   # guards what follows; taken after any other lock
    pthread_cond_t timer_wake    # for the thread that is on watch
    pthread_cond_t timer_relief  # for the one that is not
    pthread_cond_t timer_rang
    task** heap                  # the earliest alarm first
    int32_t alarms
    int32_t capacity
    task* ringing                # whose ring runs now
    bint is_watched              # a thread is on watch
    bint is_relieved             # the other one can take over at once
    bint timer_stopping
    pthread_t[TIMER_THREADS] timers


cdef int open_executor(executor* pool, int32_t max_threads) noexcept nogil
cdef void close_executor(executor* pool) noexcept nogil
cdef void schedule(executor* pool, task* ready) noexcept nogil
cdef int reserve_alarm(executor* pool, int32_t tasks) noexcept nogil
cdef void set_alarm(executor* pool, task* sleeper, int64_t due_ns) noexcept nogil
cdef void drop_alarm(executor* pool, task* sleeper) noexcept nogil
cdef void collect_tasks(task_list* mine) noexcept nogil
cdef task* take_collected(task_list* mine) noexcept nogil
cdef void defer_tasks(task_list* mine) noexcept nogil
cdef void schedule_deferred(executor* pool, task_list* mine) noexcept nogil
