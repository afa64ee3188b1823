"""The loop of an I/O thread: read all that is ready, submit it together, run what is inline, write what came of it.

A turn reads every ready connection once, then submits the requests that were complete, so that they meet in one batch;
runs the inline models among theirs; takes what other threads settled or commanded; and writes each connection once.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from kernels.asked_permit cimport resume_call
from kernels.call cimport free_spare_calls
from kernels.caller_table cimport free_callers
from kernels.connection cimport (
    close_connection, free_connection, mark_unread, prove_connection, read_connection, write_connection,
)
from kernels.executor cimport collect_tasks, task, take_collected
from kernels.handshake cimport mark_unproven, take_unproven
from kernels.hot_method cimport finish_exchange, submit_exchange
from kernels.http2 cimport say_leaving, warn_leaving
from kernels.listener cimport accept_connections, adopt_connection, close_listeners, watch_listeners
from kernels.python_calls cimport carry_out, report_stopped
from kernels.reply cimport mark_dirty
from kernels.sockets cimport *
from kernels.sweep cimport SWEEP_MS, sweep_connections
from kernels.sync cimport (
    CLOCK_MONOTONIC, int_add, int_exchange, list_take, monotonic_ns, pointer_load, pthread_create, pthread_join,
)
from kernels.transport_state cimport (
    ABORT, ADMIT_CALL, ADOPT, DRAIN, INPUT_BYTES, JUDGE, LISTENER, OUTPUT_BYTES, STOP, TICK, WAKE, command, connection, exchange,
    io_thread, listener, server_core,
)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_BLOCK
    int sigfillset(sigset_t* signals) noexcept
    int pthread_sigmask(int how, const sigset_t* signals, sigset_t* before) noexcept

cdef enum:
    EVENTS_A_TURN = 256
    PROVING_NS = 100_000       # a turn begins no further proof after that
    SUBMITTED_AT_ONCE = 1024   # a turn may bring more than a model's queue holds, which need not wait there


cdef int open_thread(io_thread* made, server_core* server, int index) noexcept nogil:
    """Make a thread's poller and buffers. 0, or -1 (close_thread frees)."""
    made.kind = WAKE
    made.index = index
    made.server = server
    made.poller = epoll_create1(EPOLL_CLOEXEC)
    made.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    made.sweeps.kind = TICK
    made.sweeps.descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    made.input = <uint8_t*> malloc(INPUT_BYTES)
    made.output = <uint8_t*> malloc(OUTPUT_BYTES)
    if (made.poller < 0 or made.wake < 0 or made.sweeps.descriptor < 0 or made.input == NULL or made.output == NULL
            or watch(made, made.wake, made) != 0 or watch(made, made.sweeps.descriptor, &made.sweeps) != 0):
        return -1
    return 0


cdef int watch(io_thread* thread, int descriptor, void* source) noexcept nogil:
    cdef epoll_event interest
    memset(&interest, 0, sizeof(interest))
    interest.events = EPOLLIN
    interest.data.ptr = source
    return epoll_ctl(thread.poller, EPOLL_CTL_ADD, descriptor, &interest)


cdef int start_thread(io_thread* made) noexcept nogil:
    """Start the loop. 0, or -1 without a thread."""
    return -1 if pthread_create(&made.handle, NULL, run_loop, made) != 0 else 0


cdef void join_thread(io_thread* used) noexcept nogil:
    """Wait for the loop to end, which must have been told to, and hang up on who was handed to it too late.

    Threads are joined in their order: the first one accepts for all.
    """
    pthread_join(used.handle, NULL)
    take_commands(used)


cdef void close_thread(io_thread* used) noexcept nogil:
    """Free what open_thread made; the loop has ended, or never began."""
    if used.poller >= 0:
        close(used.poller)
    if used.wake >= 0:
        close(used.wake)
    if used.sweeps.descriptor >= 0:
        close(used.sweeps.descriptor)
    take_commands(used)  # what Python asked of calls that were over
    free(used.input)
    free(used.output)
    free_spare_calls(used)
    free_callers(&used.callers)


# ---- the loop


cdef void* run_loop(void* argument) noexcept nogil:
    cdef io_thread* thread = <io_thread*> argument
    cdef epoll_event[EVENTS_A_TURN] events
    cdef int count, index
    block_signals()
    thread.now_ns = monotonic_ns()
    collect_tasks(&thread.inlined)
    watch_listeners(thread)
    while not thread.is_stopping or thread.outstanding > 0:
        count = wait_events(thread, events)
        thread.now_ns = monotonic_ns()
        read_again(thread)
        for index in range(count):
            handle_event(thread, &events[index])
        take_commands(thread)
        prove_connections(thread)
        submit_exchanges(thread)
        take_settled(thread)
        write_dirty(thread)
        if thread.is_sweep_due:
            thread.is_sweep_due = False
            sweep_connections(thread)
            write_dirty(thread)
        bury(thread)
    # Nothing is collected any more: what waits for a run goes to the workers.
    collect_tasks(NULL)
    bury(thread)
    return NULL


cdef void block_signals() noexcept nogil:
    """Leave signals to Python's own threads; SIGPIPE to nobody, since OpenSSL writes to peers that have gone."""
    cdef sigset_t every
    sigfillset(&every)
    pthread_sigmask(SIG_BLOCK, &every, NULL)


cdef int wait_events(io_thread* thread, epoll_event* events) noexcept nogil:
    """Sleep until something happens; not at all when something waits already."""
    cdef int timeout_ms = -1, count
    set_ticking(thread, thread.connections != NULL or thread.refused_until_ns != 0 or thread.bulky_ns != 0)
    if thread.unread != NULL or thread.unproven != NULL or thread.unsubmitted != NULL:
        # Unsubmitted are requests of streams that an answer at the end of the last turn made room for.
        return max(0, epoll_wait(thread.poller, events, EVENTS_A_TURN, 0))
    if thread.spin_ns > 0:
        count = spin(thread, events)
        if count > 0:
            return count
    int_exchange(&thread.is_asleep, 1)
    if has_work(thread):
        timeout_ms = 0
    count = epoll_wait(thread.poller, events, EVENTS_A_TURN, timeout_ms)
    int_exchange(&thread.is_asleep, 0)
    return max(0, count)


cdef void set_ticking(io_thread* thread, bint is_ticking) noexcept nogil:
    """Have sweeps come, or none: a timeout of epoll_wait's own would cost each sleep a timer (2 µs, at one call a time)."""
    cdef itimerspec period
    if is_ticking == thread.is_ticking:
        return
    thread.is_ticking = is_ticking
    memset(&period, 0, sizeof(period))
    if is_ticking:
        period.it_interval.tv_nsec = period.it_value.tv_nsec = SWEEP_MS * 1000000
    timerfd_settime(thread.sweeps.descriptor, 0, &period, NULL)


cdef int spin(io_thread* thread, epoll_event* events) noexcept nogil:
    """Look for events for a while without giving the processor up; 0 when none came, or other work did."""
    cdef int64_t until_ns = monotonic_ns() + thread.spin_ns
    cdef int count = epoll_wait(thread.poller, events, EVENTS_A_TURN, 0)
    while count == 0 and not has_work(thread) and monotonic_ns() < until_ns:
        count = epoll_wait(thread.poller, events, EVENTS_A_TURN, 0)
    return max(0, count)


cdef bint has_work(io_thread* thread) noexcept nogil:
    """Look, now that pushers would wake the thread, for what was pushed before they would."""
    return pointer_load(&thread.settled) != NULL or pointer_load(&thread.commands) != NULL


cdef void handle_event(io_thread* thread, epoll_event* happened) noexcept nogil:
    cdef int kind = (<int*> happened.data.ptr)[0]
    cdef connection* changed
    cdef uint64_t count
    if kind == WAKE:
        read(thread.wake, &count, sizeof(count))
        return
    if kind == TICK:
        thread.is_sweep_due = read(thread.sweeps.descriptor, &count, sizeof(count)) == sizeof(count)
        return
    if kind == LISTENER:
        accept_connections(thread, <listener*> happened.data.ptr)
        return
    changed = <connection*> happened.data.ptr
    if changed.descriptor < 0:
        return
    if happened.events & EPOLLOUT and changed.pending_size > 0:
        mark_dirty(changed)
    if happened.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) or changed.is_handshaking:
        read_connection(changed)
        if happened.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) and changed.descriptor >= 0:
            # The end came with the data: it makes no event of its own.
            mark_unread(changed)


cdef void read_again(io_thread* thread) noexcept nogil:
    """Go on with the connections that had more than a turn reads."""
    cdef connection* reader = thread.unread
    cdef connection* following
    thread.unread = NULL
    while reader != NULL:
        following = reader.next_unread
        reader.is_unread = False
        if reader.descriptor >= 0:
            read_connection(reader)
        reader = following


cdef void submit_exchanges(io_thread* thread) noexcept nogil:
    """Submit what the turn has read, then run the inline tasks that came of it."""
    cdef exchange* submitted = thread.unsubmitted
    cdef exchange* following
    cdef int count = 0
    thread.unsubmitted = thread.last_unsubmitted = NULL
    while submitted != NULL:
        following = submitted.waiting
        submit_exchange(submitted)
        submitted = following
        count += 1
        if count % SUBMITTED_AT_ONCE == 0:
            run_inlined(thread)
    run_inlined(thread)


cdef void run_inlined(io_thread* thread) noexcept nogil:
    cdef task* ready = take_collected(&thread.inlined)
    while ready != NULL:
        ready.run(ready)
        ready = take_collected(&thread.inlined)


cdef void take_settled(io_thread* thread) noexcept nogil:
    """Reply to what was settled, the oldest first."""
    cdef exchange* finished = <exchange*> list_take(&thread.settled)
    cdef exchange* following
    while finished != NULL:
        following = finished.settled
        finish_exchange(finished)
        finished = following


cdef void take_commands(io_thread* thread) noexcept nogil:
    cdef command* given = <command*> list_take(&thread.commands)
    cdef command* following
    while given != NULL:
        following = given.next
        follow_command(thread, given)
        given = following


cdef void follow_command(io_thread* thread, command* given) noexcept nogil:
    if given.kind == ADOPT:
        adopt_connection(thread, given.adopted)
    elif given.kind == JUDGE:
        judge_peers(thread)
    elif given.kind == DRAIN:
        drain_thread(thread)
    elif given.kind == ABORT:
        while thread.connections != NULL:
            close_connection(thread.connections)
    elif given.kind == STOP:
        thread.is_stopping = True
        while thread.connections != NULL:
            close_connection(thread.connections)
    elif given.kind == ADMIT_CALL:
        resume_call(given)
        return
    else:
        carry_out(given)
        return
    free(given)


cdef void judge_peers(io_thread* thread) noexcept nogil:
    """Have every peer that was let in judged again; those that shake hands meet the new trust at the end of that."""
    cdef connection* judged = thread.connections
    while judged != NULL:
        if judged.ssl != NULL and not judged.is_handshaking:
            mark_unproven(judged)
        judged = judged.next


cdef void prove_connections(io_thread* thread) noexcept nogil:
    """Shake hands and judge, for a short while: others never wait for more than that and one handshake."""
    cdef int64_t until_ns
    if thread.unproven == NULL:
        return
    until_ns = monotonic_ns() + PROVING_NS
    while thread.unproven != NULL:
        prove_connection(take_unproven(thread))
        if monotonic_ns() >= until_ns:
            return


cdef void drain_thread(io_thread* thread) noexcept nogil:
    """Tell every peer to go; the sweep says it a second time to those that do not answer."""
    cdef connection* warned = thread.connections
    close_listeners(thread)
    if not thread.is_draining:
        thread.is_draining = True
        int_add(&thread.server.n_draining, 1)
    while warned != NULL:
        warn_leaving(warned)  # one that still shakes hands is told when it has
        warned = warned.next
    if thread.connections == NULL:
        report_stopped(thread)


cdef void write_dirty(io_thread* thread) noexcept nogil:
    cdef connection* writer
    while thread.dirty != NULL:
        writer = thread.dirty
        thread.dirty = writer.next_dirty
        writer.is_dirty = False
        if writer.is_warned and not writer.is_leaving and writer.pinged_ns == 0:
            say_leaving(writer)
        write_connection(writer)


cdef void bury(io_thread* thread) noexcept nogil:
    """Free the connections that were closed in this turn."""
    cdef connection* closed = thread.buried
    cdef connection* following
    if closed == NULL:
        return
    thread.buried = NULL
    unlist(thread)
    while closed != NULL:
        following = closed.next
        free_connection(closed)
        closed = following
    if thread.is_draining and thread.connections == NULL:
        report_stopped(thread)


cdef void unlist(io_thread* thread) noexcept nogil:
    """Take closed connections off the lists of the next turn."""
    cdef connection** link = &thread.unread
    while link[0] != NULL:
        if link[0].descriptor < 0:
            link[0] = link[0].next_unread
        else:
            link = &link[0].next_unread
    link = &thread.dirty
    while link[0] != NULL:
        if link[0].descriptor < 0:
            link[0] = link[0].next_dirty
        else:
            link = &link[0].next_dirty
