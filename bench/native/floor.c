/* A bare gRPC echo on nghttp2, in plain text on 127.0.0.1, with one thread: what no server on nghttp2 can be cheaper than.

   floor [--empty] [PORT]

   Answers every unary call with the bytes that it brought, or with an empty message. Port 0, the default, takes a free
   one. Prints one line of JSON, with the address, when it takes connections. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "echo.h"

#define EVENTS 256
#define BACKLOG 4096

struct connection {
    int socket;
    struct echo_session session;
};

static uint8_t input[256 * 1024];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_on(unsigned short port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        bind(listener, (struct sockaddr *)&address, size) || listen(listener, BACKLOG) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        fail("floor: cannot listen");
    printf("{\"event\": \"ready\", \"address\": \"127.0.0.1:%d\"}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void close_connection(struct connection *connection)
{
    close(connection->socket);
    echo_session_free(&connection->session);
    free(connection);
}

/* Write all that there is to say, in as few writes as the output holds; -1 when the connection is over. */
static int write_output(struct connection *connection)
{
    struct echo_session *session = &connection->session;
    for (;;) {
        if (echo_session_fill(session))
            return -1;
        size_t size = output_size(&session->output);
        if (size == 0)
            return 0;
        ssize_t written = send(connection->socket, output_head(&session->output), size, MSG_NOSIGNAL);
        if (written < 0)
            return errno == EAGAIN ? 0 : -1;
        output_consume(&session->output, (size_t)written);
        if ((size_t)written == size && !session->is_held)
            return 0;
    }
}

/* Events come at edges, so everything is read; a read that leaves room has emptied the socket. */
static int serve(struct connection *connection)
{
    ssize_t size;
    do {
        size = recv(connection->socket, input, sizeof input, 0);
        if (size == 0 || (size < 0 && errno != EAGAIN))
            return -1;
        if (size > 0 && echo_session_receive(&connection->session, input, (size_t)size))
            return -1;
        if (write_output(connection))
            return -1;
    } while (size == sizeof input);
    return nghttp2_session_want_read(connection->session.http2) ? 0 : -1;
}

static void accept_connections(int listener, int epoll, struct echo_server *server)
{
    int one = 1, accepted;
    while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection || echo_session_init(&connection->session, server))
            fail("floor: out of memory");
        connection->socket = accepted;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event))
            fail("floor: epoll");
    }
}

int main(int count, char **arguments)
{
    bool is_empty = count > 1 && strcmp(arguments[1], "--empty") == 0;
    const char *port = count > 1 + is_empty ? arguments[1 + is_empty] : "0";
    char *end;
    long number = strtol(port, &end, 10);
    if (count > 2 + is_empty || *port == 0 || *end || number < 0 || number > 65535) {
        fprintf(stderr, "usage: %s [--empty] [PORT]\n", arguments[0]);
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct echo_server server;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || echo_server_init(&server, is_empty))
        fail("floor");
    int listener = listen_on((unsigned short)number);
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN, .data.ptr = NULL}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, events))
        fail("floor: epoll");
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection)
                accept_connections(listener, epoll, &server);
            else if (serve(connection))
                close_connection(connection);
        }
    }
}
