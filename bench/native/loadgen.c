/* Sends gRPC calls over HTTP/2, in a closed loop or at a rate, and prints what came of them; `loadgen --help`. */

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "handshakes.h"
#include "load.h"

static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void print_histogram(const char *name, const struct histogram *histogram)
{
    printf("\"%s\": {\"count\": %llu, \"min\": %.3f, \"mean\": %.3f, \"p50\": %.3f, \"p90\": %.3f, "
           "\"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f}",
           name, (unsigned long long)histogram->count, (double)histogram->min_ns / 1e3, histogram_mean(histogram) / 1e3,
           (double)histogram_percentile(histogram, 0.5) / 1e3, (double)histogram_percentile(histogram, 0.9) / 1e3,
           (double)histogram_percentile(histogram, 0.99) / 1e3, (double)histogram_percentile(histogram, 0.999) / 1e3,
           (double)histogram->max_ns / 1e3);
}

static void run_calls(const struct options *options, struct tls *tls)
{
    static struct load load;
    load_run(&load, options, tls);
    const int64_t *outcomes = load.outcomes;
    int64_t failed = outcomes[OUTCOME_STATUS] + outcomes[OUTCOME_HTTP] + outcomes[OUTCOME_TRAILERS] +
                     outcomes[OUTCOME_RESET] + load.lost_calls + load.unanswered;
    int64_t unsent = options->requests > 0 && options->duration_s == 0 ? options->requests - load.sent : 0;
    printf("{\"requests\": %lld, \"succeeded\": %lld, \"failed\": %lld, \"unsent\": %lld, \"seconds\": %.9f, "
           "\"cpu_seconds\": %.9f, \"reply_bytes\": %llu, ",
           (long long)load.sent, (long long)outcomes[OUTCOME_OK], (long long)failed, (long long)unsent,
           (double)(load.last_ns - load.start_ns) / 1e9, (double)load.cpu_ns / 1e9,
           (unsigned long long)load.reply_bytes);
    printf("\"failures\": {\"status\": %lld, \"http\": %lld, \"trailers\": %lld, \"reset\": %lld, \"connection\": %lld, "
           "\"unanswered\": %lld}, ",
           (long long)outcomes[OUTCOME_STATUS], (long long)outcomes[OUTCOME_HTTP],
           (long long)outcomes[OUTCOME_TRAILERS], (long long)outcomes[OUTCOME_RESET], (long long)load.lost_calls,
           (long long)load.unanswered);
    print_histogram("lateness_us", &load.lateness);
    printf(", ");
    print_histogram("latency_us", &load.latency);
    puts("}");
    load_free(&load);
}

static void run_handshakes(const struct options *options, struct tls *tls)
{
    static struct handshakes handshakes;
    handshakes_run(&handshakes, options, tls);
    printf("{\"requests\": %lld, \"succeeded\": %lld, \"failed\": %lld, \"resumed\": %lld, \"seconds\": %.9f, ",
           (long long)options->requests, (long long)handshakes.succeeded, (long long)handshakes.failed,
           (long long)handshakes.resumed, (double)(handshakes.last_ns - handshakes.start_ns) / 1e9);
    print_histogram("latency_us", &handshakes.latency);
    puts("}");
    handshakes_free(&handshakes);
}

static void keep_idle(const struct options *options, struct tls *tls)
{
    static struct load load;
    load_keep_idle(&load, options, tls);
    load_free(&load);
}

int main(int count, char **arguments)
{
    struct options options;
    struct tls tls;
    read_options(&options, count, arguments);
    /* OpenSSL writes without MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    if (options.tls_ca)
        tls_init(&tls, &options);
    void (*const run[])(const struct options *, struct tls *) = {
        [MODE_CALLS] = run_calls, [MODE_HANDSHAKES] = run_handshakes, [MODE_IDLE] = keep_idle};
    run[options.mode](&options, options.tls_ca ? &tls : NULL);
    if (options.tls_ca)
        tls_free(&tls);
    return 0;
}
