#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 5
#define MAX_CONNECTIONS 20000
#define MAX_STREAMS 10000
#define MAX_REQUESTS 1000000000LL
#define MAX_SECONDS 3600.0
#define MAX_RATE 10e6
#define MAX_MESSAGE_BYTES (1L << 30)

static const char usage[] =
    "usage: loadgen --address IPV4:PORT --path PATH [option ...]\n"
    "\n"
    "Sends gRPC calls over HTTP/2 and prints one JSON object that says what came of them.\n"
    "\n"
    "  --message FILE       the message of every call; --frame FILE: the same with its gRPC prefix; default: empty\n"
    "  --header 'N: V'      sent with every call; may be repeated\n"
    "  --connections N      default 1\n"
    "  --streams N          calls at a time on a connection; default 1\n"
    "  --in-flight N        calls at a time in all, taking the connections in turn; default: connections × streams\n"
    "  --requests N         calls in all\n"
    "  --duration S         seconds in which calls are begun; with --requests, whichever ends first\n"
    "  --rate N             calls a second, at fixed intervals: an open loop; a call's latency begins when it was due\n"
    "  --handshakes N       no calls: connections that are made and closed, --connections at a time\n"
    "  --resume             handshakes take up the TLS session of an earlier one\n"
    "  --idle               no calls: connections are kept until standard input ends\n"
    "  --cpu-of PID         process of the server: its CPU time under the calls is told, connecting excluded\n"
    "  --time-limit S       when everything ends; default 60\n"
    "  --tls-ca FILE        speaks TLS and trusts these authorities; --tls-cert, --tls-key: the client's certificate\n"
    "  --server-name NAME   that the server's certificate must have; default localhost\n";

enum { ADDRESS = 1, PATH, MESSAGE, FRAME, HEADER, CONNECTIONS, STREAMS, IN_FLIGHT, REQUESTS, DURATION, RATE, HANDSHAKES,
       RESUME, IDLE, CPU_OF, TIME_LIMIT, TLS_CA, TLS_CERT, TLS_KEY, SERVER_NAME, HELP };

static const struct option known[] = {
    {"address", required_argument, NULL, ADDRESS},
    {"path", required_argument, NULL, PATH},
    {"message", required_argument, NULL, MESSAGE},
    {"frame", required_argument, NULL, FRAME},
    {"header", required_argument, NULL, HEADER},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"streams", required_argument, NULL, STREAMS},
    {"in-flight", required_argument, NULL, IN_FLIGHT},
    {"requests", required_argument, NULL, REQUESTS},
    {"duration", required_argument, NULL, DURATION},
    {"rate", required_argument, NULL, RATE},
    {"handshakes", required_argument, NULL, HANDSHAKES},
    {"resume", no_argument, NULL, RESUME},
    {"idle", no_argument, NULL, IDLE},
    {"cpu-of", required_argument, NULL, CPU_OF},
    {"time-limit", required_argument, NULL, TIME_LIMIT},
    {"tls-ca", required_argument, NULL, TLS_CA},
    {"tls-cert", required_argument, NULL, TLS_CERT},
    {"tls-key", required_argument, NULL, TLS_KEY},
    {"server-name", required_argument, NULL, SERVER_NAME},
    {"help", no_argument, NULL, HELP},
    {0},
};

__attribute__((format(printf, 1, 2), noreturn)) static void refuse(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(2);
}

static int64_t read_count(const char *name, const char *text, int64_t most)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    if (*text == 0 || *end || value < 1 || value > most)
        refuse("--%s: expected a number from 1 to %lld, given %s", name, (long long)most, text);
    return value;
}

static double read_number(const char *name, const char *text, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*text == 0 || *end || !(value > 0) || value > most)
        refuse("--%s: expected a number above 0 and up to %g, given %s", name, most, text);
    return value;
}

static void read_address(struct options *options, const char *text)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;
    options->address.sin_family = AF_INET;
    if (size > 0 && size < sizeof host) {
        memcpy(host, text, size);
        host[size] = 0;
        if (inet_pton(AF_INET, host, &options->address.sin_addr) == 1) {
            options->address.sin_port = htons((uint16_t)read_count("address", colon + 1, 65535));
            snprintf(options->authority, sizeof options->authority, "%s", text);
            return;
        }
    }
    refuse("--address: expected an IPv4 address and a port, given %s", text);
}

static void add_header(struct options *options, const char *name, size_t name_size, const char *value)
{
    if (options->n_headers == MAX_HEADERS)
        refuse("--header: more than %d with those that every call has", MAX_HEADERS);
    options->headers[options->n_headers++] = (nghttp2_nv){
        (uint8_t *)name, (uint8_t *)value, name_size, strlen(value),
        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void read_header(struct options *options, char *text)
{
    char *colon = strstr(text, ": ");
    if (!colon || colon == text)
        refuse("--header: expected 'name: value', given %s", text);
    add_header(options, text, (size_t)(colon - text), colon + 2);
}

static void read_frame(struct options *options, const char *path, bool has_prefix)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        refuse("cannot read %s", path);
    long size = ftell(file);
    size_t prefix = has_prefix ? 0 : PREFIX_BYTES;
    if (size < 0 || size > MAX_MESSAGE_BYTES || !(options->frame = calloc(1, (size_t)size + prefix + 1)))
        refuse("%s: too large", path);
    rewind(file);
    if (fread(options->frame + prefix, 1, (size_t)size, file) != (size_t)size)
        refuse("cannot read %s", path);
    fclose(file);
    options->frame_size = (size_t)size + prefix;
    if (!has_prefix) {
        uint32_t length = htonl((uint32_t)size);
        memcpy(options->frame + 1, &length, sizeof length);
    }
}

static void set_option(struct options *options, int option, char *value)
{
    switch (option) {
    case ADDRESS: read_address(options, value); break;
    case PATH: add_header(options, ":path", 5, value); break;
    case MESSAGE: read_frame(options, value, false); break;
    case FRAME: read_frame(options, value, true); break;
    case CONNECTIONS: options->connections = (int)read_count("connections", value, MAX_CONNECTIONS); break;
    case STREAMS: options->streams = (int)read_count("streams", value, MAX_STREAMS); break;
    case IN_FLIGHT: options->in_flight = (int)read_count("in-flight", value, 1000000); break;
    case REQUESTS: options->requests = read_count("requests", value, MAX_REQUESTS); break;
    case DURATION: options->duration_s = read_number("duration", value, MAX_SECONDS); break;
    case RATE: options->rate = read_number("rate", value, MAX_RATE); break;
    case HANDSHAKES:
        options->mode = MODE_HANDSHAKES;
        options->requests = read_count("handshakes", value, MAX_REQUESTS);
        break;
    case RESUME: options->is_resuming = true; break;
    case IDLE: options->mode = MODE_IDLE; break;
    case CPU_OF: options->cpu_of = (pid_t)read_count("cpu-of", value, 1 << 30); break;
    case TIME_LIMIT: options->time_limit_s = read_number("time-limit", value, MAX_SECONDS); break;
    case TLS_CA: options->tls_ca = value; break;
    case TLS_CERT: options->tls_cert = value; break;
    case TLS_KEY: options->tls_key = value; break;
    case SERVER_NAME: options->server_name = value; break;
    case HELP: fputs(usage, stdout); exit(0);
    default: fputs(usage, stderr); exit(2);
    }
}

static void check(struct options *options)
{
    bool has_path = false;
    for (size_t i = 0; i < options->n_headers; i++)
        has_path |= options->headers[i].namelen == 5 && memcmp(options->headers[i].name, ":path", 5) == 0;
    if (options->address.sin_port == 0 || (options->mode == MODE_CALLS && !has_path))
        refuse("expected --address and --path; see --help");
    if (options->mode == MODE_CALLS && options->requests == 0 && options->duration_s == 0)
        refuse("expected --requests or --duration: a load has an end");
    if ((options->tls_cert == NULL) != (options->tls_key == NULL) || (options->tls_cert && !options->tls_ca))
        refuse("expected --tls-cert and --tls-key together, with --tls-ca");
    int64_t most = (int64_t)options->connections * options->streams;
    if (options->in_flight == 0 || options->in_flight > most)
        options->in_flight = (int)(most < 1000000 ? most : 1000000);
    /* At a rate, how long and how many are the same thing. */
    if (options->rate > 0 && options->duration_s > 0) {
        int64_t due = (int64_t)(options->rate * options->duration_s);
        if (options->requests == 0 || due < options->requests)
            options->requests = due > 0 ? due : 1;
        options->duration_s = 0;
    }
}

void read_options(struct options *options, int count, char **arguments)
{
    static uint8_t empty_frame[PREFIX_BYTES];
    *options = (struct options){
        .connections = 1,
        .streams = 1,
        .time_limit_s = 60,
        .server_name = "localhost",
        .frame = empty_frame,
        .frame_size = sizeof empty_frame,
    };
    add_header(options, ":method", 7, "POST");
    /* Pseudo-headers come first, so the others are put aside until all of the command line is read. */
    char *others[MAX_HEADERS];
    int option, n_others = 0;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (option != HEADER)
            set_option(options, option, optarg);
        else if (n_others < MAX_HEADERS)
            others[n_others++] = optarg;
        else
            refuse("--header: more than %d", MAX_HEADERS);
    }
    if (optind < count)
        refuse("did not expect %s", arguments[optind]);
    add_header(options, ":scheme", 7, options->tls_ca ? "https" : "http");
    add_header(options, ":authority", 10, options->authority);
    add_header(options, "te", 2, "trailers");
    add_header(options, "content-type", 12, "application/grpc");
    for (int i = 0; i < n_others; i++)
        read_header(options, others[i]);
    check(options);
}
