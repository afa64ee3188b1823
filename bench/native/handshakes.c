#include "handshakes.h"

#include <stdlib.h>

#include "session.h"

#define SECOND_NS 1000000000LL

/* A connection is greeted only after the server has seen our certificate: with TLS 1.3 our side of the handshake ends
   before that. */
static void on_ready(void *driver, struct connection *connection)
{
    struct handshakes *handshakes = driver;
    handshakes->last_ns = handshakes->client.now_ns;
    handshakes->succeeded++;
    handshakes->resumed += connection->wire.ssl && SSL_session_reused(connection->wire.ssl);
    histogram_add(&handshakes->latency, handshakes->last_ns - connection->opened_ns);
    connection_close(connection);
}

static void on_lost(void *driver, struct connection *connection)
{
    (void)connection;
    struct handshakes *handshakes = driver;
    handshakes->last_ns = read_clock_ns();
    handshakes->failed++;
}

static void open_closed(struct handshakes *handshakes)
{
    const struct options *options = handshakes->options;
    for (int i = 0; i < options->connections && handshakes->begun < options->requests; i++)
        if (handshakes->connections[i].state == STATE_CLOSED) {
            handshakes->begun++;
            connection_open(&handshakes->connections[i], &handshakes->client);
        }
}

void handshakes_run(struct handshakes *handshakes, const struct options *options, struct tls *tls)
{
    *handshakes = (struct handshakes){
        .options = options, .connections = calloc(options->connections, sizeof *handshakes->connections)};
    if (!handshakes->connections)
        session_fail("out of memory");
    client_init(&handshakes->client, options, tls);
    handshakes->client.driver = handshakes;
    handshakes->client.on_ready = on_ready;
    handshakes->client.on_lost = on_lost;
    handshakes->start_ns = handshakes->last_ns = read_clock_ns();
    int64_t limit_ns = handshakes->start_ns + (int64_t)(options->time_limit_s * 1e9);
    while (handshakes->succeeded + handshakes->failed < options->requests) {
        open_closed(handshakes);
        if (read_clock_ns() >= limit_ns)
            break;
        client_wait(&handshakes->client, SECOND_NS / 10);
    }
    handshakes->failed = options->requests - handshakes->succeeded;
}

void handshakes_free(struct handshakes *handshakes)
{
    for (int i = 0; i < handshakes->options->connections; i++)
        if (handshakes->connections[i].state != STATE_CLOSED)
            connection_close(&handshakes->connections[i]);
    free(handshakes->connections);
}
