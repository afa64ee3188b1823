#include "load.h"

#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "session.h"

/* More would overrun the server's queue of connections to be accepted. */
#define OPENING 64
/* The last stretch before a call is due is not slept: waking up takes as long as that. */
#define SPIN_NS 60000
#define SECOND_NS 1000000000LL

static bool is_everything_sent(const struct load *load)
{
    return (load->options->requests > 0 && load->sent == load->options->requests) ||
           (load->options->duration_s > 0 && read_clock_ns() >= load->end_ns) || load->ready == 0;
}

/* The connection whose turn it is and which has room for a call; NULL when none has. */
static struct connection *choose_connection(struct load *load)
{
    for (int tried = 0; tried < load->options->connections; tried++) {
        struct connection *connection = &load->connections[load->next];
        load->next = load->next + 1 == load->options->connections ? 0 : load->next + 1;
        if (connection->state == STATE_READY && connection->in_flight < load->options->streams)
            return connection;
    }
    return NULL;
}

static void begin_call(struct load *load, struct connection *connection, int64_t started_ns)
{
    connection_begin_call(connection, started_ns);
    load->in_flight++;
    load->sent++;
}

/* At a rate: begin the calls that are due, as far as there is room; returns when the next one is. */
static int64_t begin_due_calls(struct load *load)
{
    for (;;) {
        int64_t due_ns = load->start_ns + (int64_t)((double)load->sent * 1e9 / load->options->rate);
        if (load->sent == load->options->requests || load->in_flight >= load->options->in_flight)
            return -1;
        int64_t now_ns = read_clock_ns();
        if (due_ns > now_ns)
            return due_ns;
        struct connection *connection = choose_connection(load);
        if (!connection)
            return -1;
        histogram_add(&load->lateness, now_ns - due_ns);
        begin_call(load, connection, due_ns);
    }
}

static void begin_first_calls(struct load *load)
{
    struct connection *connection;
    while (load->in_flight < load->options->in_flight && !is_everything_sent(load) &&
           (connection = choose_connection(load)))
        begin_call(load, connection, read_clock_ns());
}

static void on_call(void *driver, struct connection *connection, const struct call *call, enum outcome outcome)
{
    struct load *load = driver;
    const struct options *options = load->options;
    int64_t now_ns = load->client.now_ns;
    load->in_flight--;
    load->outcomes[outcome]++;
    load->reply_bytes += call->reply_bytes;
    load->last_ns = now_ns;
    if (outcome == OUTCOME_OK)
        histogram_add(&load->latency, now_ns - call->started_ns);
    if (options->rate > 0 || is_everything_sent(load))
        return;
    /* With as many calls as there is room for, the room is where the last one ended. */
    bool is_full = options->in_flight == (int64_t)options->connections * options->streams;
    struct connection *next = is_full ? connection : choose_connection(load);
    if (next)
        begin_call(load, next, now_ns);
}

static void on_ready(void *driver, struct connection *connection)
{
    (void)connection;
    struct load *load = driver;
    load->opening--;
    load->ready++;
}

static void on_lost(void *driver, struct connection *connection)
{
    struct load *load = driver;
    load->lost++;
    if (!load->is_loading) {
        load->opening--;
        return;
    }
    load->ready--;
    load->lost_calls += connection->in_flight;
    load->in_flight -= connection->in_flight;
    connection->in_flight = 0;
    load->last_ns = read_clock_ns();
}

static void open_connections(struct load *load, const struct options *options, struct tls *tls)
{
    int64_t limit_ns = read_clock_ns() + (int64_t)(options->time_limit_s * 1e9);
    *load = (struct load){.options = options, .connections = calloc(options->connections, sizeof *load->connections)};
    if (!load->connections)
        session_fail("out of memory");
    client_init(&load->client, options, tls);
    load->client.driver = load;
    load->client.on_call = on_call;
    load->client.on_ready = on_ready;
    load->client.on_lost = on_lost;
    while (load->ready < options->connections && load->lost == 0) {
        while (load->opened < options->connections && load->opening < OPENING) {
            load->opening++;
            connection_open(&load->connections[load->opened++], &load->client);
        }
        if (read_clock_ns() > limit_ns)
            break;
        client_wait(&load->client, SECOND_NS / 10);
    }
    if (load->ready < options->connections)
        session_fail("cannot connect: the server is not there, or it refuses us");
    load->is_loading = true;
}

static void wait_until(struct load *load, int64_t wake_ns, int64_t limit_ns)
{
    int64_t now_ns = read_clock_ns();
    int64_t end_ns = wake_ns < 0 || wake_ns > limit_ns ? limit_ns : wake_ns - SPIN_NS;
    client_wait(&load->client, end_ns > now_ns ? end_ns - now_ns : 0);
}

/* CPU time so far of the process that is watched, all its threads; 0 when there is none. */
static int64_t read_cpu_ns(const struct options *options)
{
    clockid_t clock;
    struct timespec taken;
    if (options->cpu_of == 0)
        return 0;
    if (clock_getcpuclockid(options->cpu_of, &clock) || clock_gettime(clock, &taken))
        session_fail("cannot read the CPU time of the process that --cpu-of names");
    return taken.tv_sec * SECOND_NS + taken.tv_nsec;
}

void load_run(struct load *load, const struct options *options, struct tls *tls)
{
    open_connections(load, options, tls);
    prctl(PR_SET_TIMERSLACK, 1);
    int64_t cpu_ns = read_cpu_ns(options);
    load->start_ns = load->last_ns = load->client.now_ns = read_clock_ns();
    load->end_ns = load->start_ns + (int64_t)(options->duration_s * 1e9);
    int64_t limit_ns = load->start_ns + (int64_t)(options->time_limit_s * 1e9);
    if (options->rate == 0)
        begin_first_calls(load);
    while ((load->in_flight > 0 || !is_everything_sent(load)) && read_clock_ns() < limit_ns) {
        int64_t wake_ns = options->rate > 0 ? begin_due_calls(load) : -1;
        client_flush(&load->client);
        wait_until(load, wake_ns, limit_ns);
    }
    load->cpu_ns = read_cpu_ns(options) - cpu_ns;
    load->unanswered = load->in_flight;
    if (load->unanswered > 0)
        load->last_ns = read_clock_ns();
}

void load_keep_idle(struct load *load, const struct options *options, struct tls *tls)
{
    open_connections(load, options, tls);
    printf("{\"event\": \"ready\", \"connections\": %d}\n", load->ready);
    fflush(stdout);
    int64_t limit_ns = read_clock_ns() + (int64_t)(options->time_limit_s * 1e9);
    char unused[64];
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (read_clock_ns() < limit_ns && load->ready > 0) {
        client_wait(&load->client, SECOND_NS / 50);
        if (poll(&input, 1, 0) > 0 && read(STDIN_FILENO, unused, sizeof unused) <= 0)
            break;
    }
}

void load_free(struct load *load)
{
    for (int i = 0; i < load->opened; i++)
        if (load->connections[i].state != STATE_CLOSED)
            connection_close(&load->connections[i]);
    free(load->connections);
}
