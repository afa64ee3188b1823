"""One thread that runs tasks in the order in which they came: the only one from which a session is run."""

from kernels.executor cimport task
from kernels.sync cimport pthread_cond_t, pthread_mutex_t, pthread_t


cdef struct lane:
    pthread_mutex_t lock     # guards what follows
    pthread_cond_t work
    task* first
    task* last
    bint stopping
    bint is_open
    pthread_t thread


cdef int open_lane(lane* made) noexcept nogil
cdef void close_lane(lane* used) noexcept nogil
cdef void append_task(lane* used, task* ready) noexcept nogil
