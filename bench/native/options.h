/* The load generator's command line, read and checked. */
#pragma once

#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_HEADERS 32

enum mode {
    MODE_CALLS,      /* calls, in a closed loop or at a rate */
    MODE_HANDSHAKES, /* connections that are made and closed again */
    MODE_IDLE,       /* connections that are kept and not used until standard input ends */
};

struct options {
    enum mode mode;
    struct sockaddr_in address;
    char authority[64];
    int connections;
    int streams;         /* most calls under way on a connection */
    int in_flight;       /* most calls under way in all */
    int64_t requests;    /* calls or handshakes; 0 when the duration alone decides */
    double duration_s;   /* no call is begun after it; 0 when the number alone decides */
    double rate;         /* calls a second whether or not earlier ones were answered; 0 is the closed loop */
    double time_limit_s; /* after which whatever has not happened counts as failed */
    pid_t cpu_of;        /* process whose CPU time under the calls is told; 0: none */
    bool is_resuming;    /* handshakes take up an earlier TLS session */
    const char *tls_ca;  /* NULL: plain text */
    const char *tls_cert;
    const char *tls_key;
    const char *server_name;
    uint8_t *frame; /* the message with its gRPC prefix, owned by the program until it ends */
    size_t frame_size;
    nghttp2_nv headers[MAX_HEADERS];
    size_t n_headers;
};

/* Ends the program with a message when the command line is wrong. */
void read_options(struct options *options, int count, char **arguments);
