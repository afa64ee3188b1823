"""Declarations of the socket, epoll, eventfd and timerfd calls that the transport makes."""

from libc.stdint cimport uint32_t, uint64_t

from kernels.sync cimport timespec


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET, EPOLLERR, EPOLLHUP
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    int epoll_create1(int flags) noexcept
    int epoll_ctl(int poller, int operation, int descriptor, epoll_event* event) noexcept
    int epoll_wait(int poller, epoll_event* events, int room, int timeout_ms) noexcept

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int initial, int flags) noexcept

cdef extern from "<sys/timerfd.h>" nogil:
    int TFD_NONBLOCK, TFD_CLOEXEC
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags) noexcept
    int timerfd_settime(int descriptor, int flags, const itimerspec* value, itimerspec* before) noexcept

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, SHUT_RDWR, SHUT_WR, AF_INET, AF_INET6, AF_UNIX
    int accept4(int descriptor, sockaddr* address, socklen_t* size, int flags) noexcept
    ssize_t recv(int descriptor, void* data, size_t size, int flags) noexcept
    ssize_t sendmsg(int descriptor, const msghdr* message, int flags) noexcept
    ssize_t send(int descriptor, const void* data, size_t size, int flags) noexcept
    int setsockopt(int descriptor, int level, int name, const void* value, socklen_t size) noexcept
    int shutdown(int descriptor, int how) noexcept

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    unsigned short ntohs(unsigned short value) noexcept

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size) noexcept

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int descriptor, void* data, size_t size) noexcept
    ssize_t write(int descriptor, const void* data, size_t size) noexcept
    int close(int descriptor) noexcept

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int open(const char* path, int flags) noexcept

cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED
