/* What TLS connections share: trust, the client's certificate, and the session that the next may take up. */
#pragma once

#include <openssl/ssl.h>

#include "options.h"

struct tls {
    SSL_CTX *context;
    SSL_SESSION *session; /* the newest, owned; NULL until there is one, and where none is to be taken up */
    const char *server_name;
    bool is_resuming;
};

/* Ends the program with a message when a file cannot be used. */
void tls_init(struct tls *tls, const struct options *options);

/* A client's connection on a socket; NULL when memory has run out. */
SSL *tls_open(struct tls *tls, int socket);

void tls_free(struct tls *tls);
