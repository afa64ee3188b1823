#include "tls.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION_free(tls->session);
    tls->session = session;
    return 1;
}

void tls_init(struct tls *tls, const struct options *options)
{
    static const unsigned char protocols[] = "\2h2";
    *tls = (struct tls){.server_name = options->server_name, .is_resuming = options->is_resuming};
    SSL_CTX *context = tls->context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1) ||
        !SSL_CTX_load_verify_locations(context, options->tls_ca, NULL) ||
        (options->tls_cert && (SSL_CTX_use_certificate_chain_file(context, options->tls_cert) != 1 ||
                               SSL_CTX_use_PrivateKey_file(context, options->tls_key, SSL_FILETYPE_PEM) != 1))) {
        fputs("loadgen: cannot use the certificates: ", stderr);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (options->is_resuming) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_set_app_data(context, tls);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
}

SSL *tls_open(struct tls *tls, int socket)
{
    SSL *ssl = SSL_new(tls->context);
    if (!ssl)
        return NULL;
    if (!SSL_set_fd(ssl, socket) || !SSL_set_tlsext_host_name(ssl, tls->server_name) ||
        !SSL_set1_host(ssl, tls->server_name) || (tls->session && !SSL_set_session(ssl, tls->session))) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

void tls_free(struct tls *tls)
{
    SSL_SESSION_free(tls->session);
    SSL_CTX_free(tls->context);
}
