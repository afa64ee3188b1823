/* The client's side of one HTTP/2 connection, and the calls on it. */
#pragma once

#include <nghttp2/nghttp2.h>
#include <stdbool.h>

#include "options.h"
#include "output.h"
#include "tls.h"
#include "wire.h"

enum state {
    STATE_CLOSED,
    STATE_CONNECTING,
    STATE_GREETING, /* our preface is out, the server's SETTINGS have not come */
    STATE_READY,
};

/* How a call ended. */
enum outcome {
    OUTCOME_OK,
    OUTCOME_STATUS,   /* another grpc-status than 0 */
    OUTCOME_HTTP,     /* another :status than 200 */
    OUTCOME_TRAILERS, /* no grpc-status at all */
    OUTCOME_RESET,    /* the stream was reset */
    OUTCOMES,
};

struct call {
    struct call *next; /* among the unused */
    int64_t started_ns;
    uint64_t reply_bytes; /* of DATA: messages with their prefixes */
    size_t sent;          /* of the frame */
    int grpc_status;      /* -1: none yet */
    int http_status;
};

struct connection {
    struct client *client;
    enum state state;
    struct wire wire;
    nghttp2_session *http2; /* NULL until the wire is connected */
    struct output output;
    int in_flight;
    bool has_greeting; /* the server's SETTINGS have come */
    bool is_dirty;     /* among the client's, to be flushed */
    struct connection *next_dirty;
    int64_t opened_ns;
};

/* What the connections of a program share, and whom they tell. */
struct client {
    const struct options *options;
    struct tls *tls; /* NULL: plain text */
    int epoll;
    int64_t now_ns; /* when the last bytes came */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *http2_options;
    struct call *unused;
    struct connection *dirty;
    void *driver;
    /* A call ended. New ones may be begun, connections must not be closed. */
    void (*on_call)(void *driver, struct connection *connection, const struct call *call, enum outcome outcome);
    /* The server has greeted the connection, or the connection is lost, with the calls on it. */
    void (*on_ready)(void *driver, struct connection *connection);
    void (*on_lost)(void *driver, struct connection *connection);
};

int64_t read_clock_ns(void);

/* Each ends the program when memory has run out. */
void client_init(struct client *client, const struct options *options, struct tls *tls);
void connection_open(struct connection *connection, struct client *client);
void connection_begin_call(struct connection *connection, int64_t started_ns);

/* Do what an event of the socket allows. */
void connection_handle(struct connection *connection);

/* Write what the connections have to say since the last time. */
void client_flush(struct client *client);

void connection_close(struct connection *connection);

/* Wait for events and handle them; -1 ns waits as long as it takes. */
void client_wait(struct client *client, int64_t timeout_ns);
