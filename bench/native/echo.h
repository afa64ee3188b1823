/* The server's side of an HTTP/2 session in which every unary gRPC call is answered with the bytes that it brought. */
#pragma once

#include <nghttp2/nghttp2.h>
#include <stdbool.h>

#include "output.h"

/* What the sessions of a server share. */
struct echo_server {
    bool is_empty; /* answer with an empty message instead */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    struct echo_call *unused; /* calls to be had again, linked */
};

/* One connection's session. */
struct echo_session {
    struct echo_server *server;
    nghttp2_session *http2;
    struct output output;
    struct echo_call *calls; /* under way, linked */
    bool is_held; /* the output is full; there is more to be had once it has been written */
};

/* 0, or -1 when memory has run out. */
int echo_server_init(struct echo_server *server, bool is_empty);
int echo_session_init(struct echo_session *session, struct echo_server *server);

/* Take what was received; -1 when the session is over. */
int echo_session_receive(struct echo_session *session, const uint8_t *bytes, size_t size);

/* Put what there is to send into the output, as much as it holds; -1 when the session is over. */
int echo_session_fill(struct echo_session *session);

void echo_session_free(struct echo_session *session);
