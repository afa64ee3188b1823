#include "wire.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls.h"

static ssize_t explain(struct wire *wire, int result)
{
    int error = SSL_get_error(wire->ssl, result);
    ERR_clear_error();
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WIRE_AGAIN : WIRE_LOST;
}

int wire_open(struct wire *wire, const struct sockaddr_in *address, struct tls *tls)
{
    int one = 1;
    *wire = (struct wire){.socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (wire->socket < 0)
        return WIRE_LOST;
    setsockopt(wire->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if ((connect(wire->socket, (const struct sockaddr *)address, sizeof *address) && errno != EINPROGRESS) ||
        (tls && !(wire->ssl = tls_open(tls, wire->socket)))) {
        wire_close(wire);
        return WIRE_LOST;
    }
    return 0;
}

int wire_connect(struct wire *wire)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    if (getpeername(wire->socket, (struct sockaddr *)&peer, &size)) {
        int error = 0;
        size = sizeof error;
        getsockopt(wire->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        return error ? WIRE_LOST : WIRE_AGAIN;
    }
    if (!wire->ssl)
        return 0;
    int result = SSL_do_handshake(wire->ssl);
    if (result != 1)
        return (int)explain(wire, result);
    const unsigned char *protocol;
    unsigned int length;
    SSL_get0_alpn_selected(wire->ssl, &protocol, &length);
    return length == 2 && memcmp(protocol, "h2", 2) == 0 ? 0 : WIRE_LOST;
}

ssize_t wire_receive(struct wire *wire, uint8_t *buffer, size_t size)
{
    if (wire->ssl) {
        int received = SSL_read(wire->ssl, buffer, (int)size);
        return received > 0 ? received : explain(wire, received);
    }
    ssize_t received = recv(wire->socket, buffer, size, 0);
    if (received > 0)
        return received;
    return received < 0 && errno == EAGAIN ? WIRE_AGAIN : WIRE_LOST;
}

ssize_t wire_send(struct wire *wire, const uint8_t *bytes, size_t size)
{
    if (wire->ssl) {
        int sent = SSL_write(wire->ssl, bytes, (int)size);
        return sent > 0 ? sent : explain(wire, sent);
    }
    ssize_t sent = send(wire->socket, bytes, size, MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN ? WIRE_AGAIN : WIRE_LOST;
}

bool wire_has_more(const struct wire *wire, size_t received, size_t asked)
{
    return wire->ssl || received == asked;
}

void wire_close(struct wire *wire)
{
    if (wire->ssl) {
        SSL_shutdown(wire->ssl);
        SSL_free(wire->ssl);
        ERR_clear_error();
    }
    if (wire->socket >= 0)
        close(wire->socket);
    *wire = (struct wire){.socket = -1};
}
