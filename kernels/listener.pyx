"""Accepts on the first I/O thread and hands each connection to the least loaded one.

One thread accepts for all: with a listener each (SO_REUSEPORT), threads would stay idle beside a busy one, connections
that wait at a close would be lost, and a second server could bind the same port in silence.
"""

from libc.stdio cimport snprintf
from libc.stdlib cimport calloc
from libc.string cimport memset

from kernels.connection cimport begin_connection, create_connection, discard_connection, read_connection
from kernels.http2 cimport warn_leaving
from kernels.mailbox cimport push_command
from kernels.sockets cimport *
from kernels.sync cimport int_add, int_load
from kernels.transport_state cimport (
    ADDRESS_BYTES, ADOPT, PAUSED_NS, command, connection, io_thread, listener, server_core,
)

cdef enum:
    ACCEPTED_A_TURN = 64
    TEXT_BYTES = 46


cdef void watch_listeners(io_thread* thread) noexcept nogil:
    """Have the first thread accept; at its start, and again after descriptors had run out."""
    cdef epoll_event interest
    cdef int index
    thread.refused_until_ns = 0
    if thread.index != 0 or thread.is_draining:
        return
    memset(&interest, 0, sizeof(interest))
    interest.events = EPOLLIN
    for index in range(thread.server.n_listeners):
        interest.data.ptr = &thread.server.listeners[index]
        epoll_ctl(thread.poller, EPOLL_CTL_ADD, thread.server.listeners[index].descriptor, &interest)


cdef void close_listeners(io_thread* thread) noexcept nogil:
    """Accept no more: connections that wait to be accepted are still taken first."""
    cdef server_core* server = thread.server
    cdef int index
    if thread.index != 0:
        return
    for index in range(server.n_listeners):
        accept_connections(thread, &server.listeners[index])
        epoll_ctl(thread.poller, EPOLL_CTL_DEL, server.listeners[index].descriptor, NULL)
        close(server.listeners[index].descriptor)
    server.n_listeners = 0


cdef void accept_connections(io_thread* thread, listener* source) noexcept nogil:
    """Take the connections that wait, up to a bound."""
    cdef server_core* server = thread.server
    cdef sockaddr_storage address
    cdef socklen_t size
    cdef int descriptor, count
    for count in range(ACCEPTED_A_TURN):
        size = sizeof(address)
        descriptor = accept4(source.descriptor, <sockaddr*> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if descriptor < 0:
            if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                shed_connection(thread, source)
            if errno != EINTR and errno != ECONNABORTED:
                return
        elif int_add(&server.n_connections, 1) > server.limits.max_connections:
            int_add(&server.n_connections, -1)
            close(descriptor)
        else:
            hand_over(server, descriptor, source.has_tls, &address)


cdef void shed_connection(io_thread* thread, listener* source) noexcept nogil:
    """Without descriptors: give up the one kept for this, to turn one peer away, and pause instead of spinning."""
    cdef server_core* server = thread.server
    cdef int descriptor, index
    if server.reserve >= 0:
        close(server.reserve)
        descriptor = accept4(source.descriptor, NULL, NULL, SOCK_CLOEXEC)
        if descriptor >= 0:
            close(descriptor)
        server.reserve = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
    for index in range(server.n_listeners):
        epoll_ctl(thread.poller, EPOLL_CTL_DEL, server.listeners[index].descriptor, NULL)
    thread.refused_until_ns = thread.now_ns + PAUSED_NS


cdef void hand_over(server_core* server, int descriptor, bint has_tls, sockaddr_storage* address) noexcept nogil:
    """Give an accepted socket, counted already, to the least loaded thread."""
    cdef io_thread* chosen = &server.threads[0]
    cdef command* given
    cdef connection* made
    cdef int index
    for index in range(1, server.n_threads):
        if int_load(&server.threads[index].load) < int_load(&chosen.load):
            chosen = &server.threads[index]
    made = create_connection(descriptor, has_tls)
    if made == NULL:
        close(descriptor)
        int_add(&server.n_connections, -1)
        return
    write_address(made, address)
    given = <command*> calloc(1, sizeof(command))
    if given == NULL:
        discard_connection(made)
        int_add(&server.n_connections, -1)
        return
    int_add(&chosen.load, 1)
    given.kind = ADOPT
    given.adopted = made
    push_command(chosen, given)


cdef void write_address(connection* made, sockaddr_storage* address) noexcept nogil:
    """Write the peer's address as grpcio does."""
    cdef char[TEXT_BYTES] text
    cdef sockaddr_in* four = <sockaddr_in*> address
    cdef sockaddr_in6* six = <sockaddr_in6*> address
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, TEXT_BYTES)
        snprintf(made.address, ADDRESS_BYTES, "ipv4:%s:%d", text, <int> ntohs(four.sin_port))
    elif address.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &six.sin6_addr, text, TEXT_BYTES)
        snprintf(made.address, ADDRESS_BYTES, "ipv6:%%5B%s%%5D:%d", text, <int> ntohs(six.sin6_port))
    else:
        snprintf(made.address, ADDRESS_BYTES, "unix:")


cdef void adopt_connection(io_thread* thread, connection* adopted) noexcept nogil:
    """Begin a connection on its thread; one that comes while the server drains is told to go at once, or is too late."""
    if thread.is_stopping:
        discard_connection(adopted)
        int_add(&thread.load, -1)
        int_add(&thread.server.n_connections, -1)
        return
    if begin_connection(adopted, thread) != 0:
        return
    read_connection(adopted)
    if thread.is_draining and adopted.descriptor >= 0 and adopted.session != NULL:
        warn_leaving(adopted)
