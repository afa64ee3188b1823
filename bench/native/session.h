/* nghttp2 as a client's connections use it: one request, sent again and again, and what comes back. */
#pragma once

#include "connection.h"

/* Ends the program. */
__attribute__((noreturn)) void session_fail(const char *what);

/* Give a client the callbacks and options that its sessions need. */
void session_prepare(struct client *client);

/* Begin to speak HTTP/2. */
void session_open(struct connection *connection);

void session_begin_call(struct connection *connection, int64_t started_ns);

/* Put what there is to send into the output, as much as it holds; -1 when the session is over. */
int session_fill(struct connection *connection);
