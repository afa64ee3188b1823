/* Calls on many connections, in a closed loop or at a rate, and what came of them. */
#pragma once

#include "connection.h"
#include "histogram.h"

struct load {
    struct client client;
    const struct options *options;
    struct connection *connections; /* owned */
    int next;                       /* connection whose turn it is */
    int opened;                     /* connections that were tried */
    int opening;
    int ready;
    int lost;
    bool is_loading; /* all connections are open: calls are made */
    int64_t start_ns;
    int64_t end_ns; /* no call is begun after it */
    int64_t last_ns; /* when the last call ended */
    int64_t cpu_ns;  /* that the watched process took between the first call and the last answer */
    int64_t in_flight;
    int64_t sent;
    int64_t outcomes[OUTCOMES];
    int64_t lost_calls;  /* with their connection */
    int64_t unanswered;  /* under way at the time limit */
    uint64_t reply_bytes;
    struct histogram latency;  /* of the calls that succeeded */
    struct histogram lateness; /* at a rate: how long after it was due each call was begun */
};

/* Run to the end or the time limit. Ends the program when a connection cannot be made. */
void load_run(struct load *load, const struct options *options, struct tls *tls);

/* Make the connections, say so in one line, and keep them until standard input ends. */
void load_keep_idle(struct load *load, const struct options *options, struct tls *tls);

void load_free(struct load *load);
