/* Connections that are made, greeted by the server and closed again, over and over. */
#pragma once

#include "connection.h"
#include "histogram.h"

struct handshakes {
    struct client client;
    const struct options *options;
    struct connection *connections; /* owned */
    int64_t begun;
    int64_t succeeded;
    int64_t failed;
    int64_t resumed; /* took up an earlier TLS session */
    int64_t start_ns;
    int64_t last_ns;
    struct histogram latency;
};

/* Run to the end or the time limit. */
void handshakes_run(struct handshakes *handshakes, const struct options *options, struct tls *tls);

void handshakes_free(struct handshakes *handshakes);
