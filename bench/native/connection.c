#include "connection.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "session.h"

#define EVENTS 256

static uint8_t input[256 * 1024];

int64_t read_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void client_init(struct client *client, const struct options *options, struct tls *tls)
{
    *client = (struct client){.options = options, .tls = tls, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    session_prepare(client);
    if (client->epoll < 0)
        session_fail("epoll");
}

static void lose(struct connection *connection)
{
    connection_close(connection);
    connection->client->on_lost(connection->client->driver, connection);
}

void connection_open(struct connection *connection, struct client *client)
{
    *connection = (struct connection){.client = client, .opened_ns = read_clock_ns()};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    if (wire_open(&connection->wire, &client->options->address, client->tls) ||
        epoll_ctl(client->epoll, EPOLL_CTL_ADD, connection->wire.socket, &event))
        lose(connection);
    else
        connection->state = STATE_CONNECTING;
}

void connection_close(struct connection *connection)
{
    struct connection **link = &connection->client->dirty;
    while (connection->is_dirty && *link != connection)
        link = &(*link)->next_dirty;
    if (connection->is_dirty)
        *link = connection->next_dirty;
    connection->is_dirty = false;
    connection->state = STATE_CLOSED;
    wire_close(&connection->wire);
    nghttp2_session_del(connection->http2);
    connection->http2 = NULL;
    output_free(&connection->output);
}

/* Write until there is nothing more to say or the socket takes no more; -1 when the connection is over. */
static int flush(struct connection *connection)
{
    for (;;) {
        if (session_fill(connection))
            return -1;
        size_t size = output_size(&connection->output);
        if (size == 0)
            return 0;
        ssize_t sent = wire_send(&connection->wire, output_head(&connection->output), size);
        if (sent < 0)
            return sent == WIRE_AGAIN ? 0 : -1;
        output_consume(&connection->output, (size_t)sent);
    }
}

static int receive(struct connection *connection)
{
    ssize_t size;
    do {
        size = wire_receive(&connection->wire, input, sizeof input);
        if (size < 0)
            return size == WIRE_AGAIN ? 0 : -1;
        connection->client->now_ns = read_clock_ns();
        if (nghttp2_session_mem_recv(connection->http2, input, (size_t)size) < 0)
            return -1;
    } while (wire_has_more(&connection->wire, (size_t)size, sizeof input));
    return 0;
}

/* 0 when HTTP/2 can be spoken. */
static int connect_wire(struct connection *connection)
{
    int result = wire_connect(&connection->wire);
    if (result == 0) {
        session_open(connection);
        connection->state = STATE_GREETING;
    }
    return result;
}

void connection_handle(struct connection *connection)
{
    if (connection->state == STATE_CONNECTING) {
        int result = connect_wire(connection);
        if (result == WIRE_LOST)
            lose(connection);
        if (result)
            return;
    }
    if (receive(connection) || flush(connection) || !nghttp2_session_want_read(connection->http2)) {
        lose(connection);
        return;
    }
    if (connection->state == STATE_GREETING && connection->has_greeting) {
        connection->state = STATE_READY;
        connection->client->on_ready(connection->client->driver, connection);
    }
    client_flush(connection->client);
}

void connection_begin_call(struct connection *connection, int64_t started_ns)
{
    struct client *client = connection->client;
    session_begin_call(connection, started_ns);
    connection->in_flight++;
    if (!connection->is_dirty) {
        connection->is_dirty = true;
        connection->next_dirty = client->dirty;
        client->dirty = connection;
    }
}

void client_flush(struct client *client)
{
    while (client->dirty) {
        struct connection *connection = client->dirty;
        client->dirty = connection->next_dirty;
        connection->is_dirty = false;
        if (flush(connection))
            lose(connection);
    }
}

void client_wait(struct client *client, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int ready = epoll_pwait2(client->epoll, events, EVENTS, timeout_ns < 0 ? NULL : &timeout, NULL);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection && connection->state != STATE_CLOSED)
            connection_handle(connection);
    }
}
