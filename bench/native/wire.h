/* A TCP connection that never blocks, in plain text or TLS. */
#pragma once

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tls;

/* Instead of a number of bytes. */
#define WIRE_AGAIN (-1) /* nothing now; the socket will say when */
#define WIRE_LOST (-2)  /* the other side is gone, or is not what it should be */

struct wire {
    int socket; /* -1 when closed */
    SSL *ssl;   /* NULL in plain text */
};

/* Begin to connect; `tls` may be NULL. 0 or WIRE_LOST. */
int wire_open(struct wire *wire, const struct sockaddr_in *address, struct tls *tls);

/* Go on connecting: 0 when calls can be sent, else WIRE_AGAIN or WIRE_LOST. */
int wire_connect(struct wire *wire);

ssize_t wire_receive(struct wire *wire, uint8_t *buffer, size_t size);
ssize_t wire_send(struct wire *wire, const uint8_t *bytes, size_t size);

/* Whether a receive that gave so many bytes may have left some behind, of which the socket would not tell again. */
bool wire_has_more(const struct wire *wire, size_t received, size_t asked);

void wire_close(struct wire *wire);
