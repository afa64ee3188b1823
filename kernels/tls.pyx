"""TLS contexts of OpenSSL, made from PEM: for HTTP/2 only, with what is needed to judge clients' certificates.

A context never changes. Whoever wants other certificates makes another one: sessions belong to the context that made
them, so that what was trusted under an old one is not resumed under the new.
"""

from dataclasses import dataclass

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen

from kernels.openssl cimport *
from kernels.sync cimport int_add

cdef enum:
    CACHED_SESSIONS = 4096     # of 10 KiB each, most of it the client's certificate
    DAY_S = 86400
    ERROR_TEXT_BYTES = 256

cdef extern from *:
    """
    static const unsigned char H2_PROTOCOL[] = {2, 'h', '2'};
    static const char CIPHERS[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
    """
    const unsigned char H2_PROTOCOL[3]
    const char* CIPHERS


class TlsError(Exception):
    """Certificates or keys cannot be used; the text says which and why."""


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """A server's side of TLS.

    Parameters
    ----------
    certificate, key : bytes
        The server's certificate with its chain and its private key, PEM.
    client_ca : bytes or None
        Authorities whose clients are trusted, PEM; without any, no client is asked for a certificate.
    require_client_certificate : bool
        Whether the handshake fails for a client that has none.
    allowed_names : tuple of str
        URI names of which a client's certificate must carry one; empty lets every trusted client in. A client without
        one gets PERMISSION_DENIED for each of its calls.
    refusal : str
        What such a client is told.
    crl : bytes or None
        Lists of revoked certificates, PEM: one of each authority that clients come by, intermediate ones too. A client
        whose authority has none, or one that is past its time, is not trusted.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None
    require_client_certificate: bool = True
    allowed_names: tuple = ()
    refusal: str = "the caller's certificate carries no allowed name"
    crl: bytes | None = None


# ---- contexts


cdef tls_context* share_context(tls_context* context) noexcept nogil:
    """Return the context with one more reference; NULL stays NULL."""
    if context != NULL:
        int_add(&context.references, 1)
    return context


cdef void retire_context(tls_context* context) noexcept nogil:
    """Forget the sessions of a context that makes no more; connections of its time may hold it for long."""
    if context != NULL:
        SSL_CTX_flush_sessions(context.ssl, 0)


cdef void release_context(tls_context* context) noexcept nogil:
    """Give a reference back; the last one frees the context."""
    cdef char** name
    if context == NULL or int_add(&context.references, -1) > 0:
        return
    SSL_CTX_free(context.ssl)
    name = context.allowed
    while name != NULL and name[0] != NULL:
        free(name[0])
        name += 1
    free(context.allowed)
    free(context.refusal)
    free(context)


cdef tls_context* create_context(settings) except NULL:
    """Return a context with one reference. Raises TlsError."""
    cdef tls_context* made = <tls_context*> calloc(1, sizeof(tls_context))
    if made == NULL:
        raise MemoryError
    made.references = 1
    try:
        made.ssl = SSL_CTX_new(TLS_server_method())
        if made.ssl == NULL:
            raise MemoryError
        set_protocol(made.ssl)
        load_identity(made.ssl, settings.certificate, settings.key)
        made.asks = settings.client_ca is not None
        if made.asks:
            load_authorities(made.ssl, settings.client_ca)
            made.demands = settings.require_client_certificate
            SSL_CTX_set_verify(
                made.ssl, SSL_VERIFY_PEER | (SSL_VERIFY_FAIL_IF_NO_PEER_CERT if made.demands else 0), NULL)
        elif settings.allowed_names or settings.crl is not None:
            raise TlsError("the clients' authorities: none, though clients are to be told apart")
        if settings.crl is not None:
            load_revoked(SSL_CTX_get_cert_store(made.ssl), settings.crl)
        copy_names(made, settings.allowed_names)
        made.refusal = copy_text(settings.refusal)
    except BaseException:
        release_context(made)
        raise
    return made


cdef int set_protocol(SSL_CTX* context) except -1:
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION)
    # Sessions are kept here and not in tickets: a resumed one then has the client's whole chain, to be judged again.
    # A client that just hangs up may take its session up again (RFC 5246, 7.2.1): HTTP/2 shows what was cut off.
    SSL_CTX_set_options(
        context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE
        | SSL_OP_IGNORE_UNEXPECTED_EOF)
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_SERVER)
    SSL_CTX_sess_set_cache_size(context, CACHED_SESSIONS)
    SSL_CTX_set_num_tickets(context, 1)  # of TLS 1.3: a client of gRPC opens one connection at a time
    SSL_CTX_sess_set_new_cb(context, end_with_certificates)
    SSL_CTX_set_session_id_context(context, b"sluice", 6)
    # The chain is what the file has: OpenSSL would look for it among the clients' authorities, at every handshake.
    SSL_CTX_set_mode(
        context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS
        | SSL_MODE_NO_AUTO_CHAIN)
    SSL_CTX_set_client_hello_cb(context, demand_protocol, NULL)
    SSL_CTX_set_alpn_select_cb(context, select_h2, NULL)
    # Of TLS 1.2 only what HTTP/2 allows (RFC 9113, 9.2.2).
    if SSL_CTX_set_cipher_list(context, CIPHERS) != 1:
        raise_tls("ciphers")
    return 0


cdef int demand_protocol(SSL* ssl, int* alert, void* argument) noexcept nogil:
    """Refuse a client that names no protocol, as gRPC's servers do: OpenSSL asks select_h2 only when it names some."""
    cdef const unsigned char* data
    cdef size_t size
    if SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &size) == 1:
        return SSL_CLIENT_HELLO_SUCCESS
    alert[0] = SSL_AD_NO_APPLICATION_PROTOCOL
    return SSL_CLIENT_HELLO_ERROR


cdef int select_h2(SSL* ssl, const unsigned char** out, unsigned char* size, const unsigned char* offered,
                   unsigned int offered_size, void* argument) noexcept nogil:
    if SSL_select_next_proto(<unsigned char**> out, size, H2_PROTOCOL, 3, offered,
                             offered_size) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_OK


cdef int end_with_certificates(SSL* ssl, SSL_SESSION* made) noexcept nogil:
    """Let a session end with its client's certificates: a client that has renewed them then shakes hands in full."""
    cdef stack_x509* chain = SSL_get_peer_cert_chain(ssl)
    cdef int index
    shorten_session(made, SSL_get0_peer_certificate(ssl))
    for index in range(sk_X509_num(chain)):
        shorten_session(made, sk_X509_value(chain, index))
    return 0  # no reference is kept


cdef void shorten_session(SSL_SESSION* made, const X509* certificate) noexcept nogil:
    cdef int days, seconds
    cdef long left_s
    if certificate == NULL or ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)) != 1:
        return
    # A certificate has ended in the second of its end, a session in the one after.
    left_s = max(<long> 0, <long> days * DAY_S + seconds - 1)
    if left_s < SSL_SESSION_get_timeout(made):
        SSL_SESSION_set_timeout(made, left_s)


cdef BIO* open_pem(bytes text) except NULL:
    cdef BIO* source = BIO_new_mem_buf(<const char*> text, <int> len(text))
    if source == NULL:
        raise MemoryError
    return source


cdef int load_identity(SSL_CTX* context, bytes certificates, bytes key) except -1:
    cdef BIO* source = open_pem(certificates)
    cdef X509* one = read_certificate(source)
    cdef int count = 0, taken = 1
    while one != NULL and taken == 1:
        taken = SSL_CTX_use_certificate(context, one) if count == 0 else <int> SSL_CTX_add1_chain_cert(context, one)
        X509_free(one)
        count += 1
        one = read_certificate(source) if taken == 1 else NULL
    BIO_free(source)
    if taken != 1:
        raise_tls("the server's certificate")
    check_end(count, "the server's certificate")
    return load_key(context, key)


cdef int load_key(SSL_CTX* context, bytes key) except -1:
    cdef BIO* source = open_pem(key)
    cdef bint is_encrypted = False
    cdef EVP_PKEY* private = PEM_read_bio_PrivateKey(source, NULL, refuse_password, &is_encrypted)
    cdef int taken
    BIO_free(source)
    if is_encrypted:
        EVP_PKEY_free(private)
        ERR_clear_error()
        raise TlsError("the server's key: is encrypted, and nobody is asked for its password")
    if private == NULL:
        raise_tls("the server's key")
    taken = SSL_CTX_use_PrivateKey(context, private)
    EVP_PKEY_free(private)
    if taken != 1 or SSL_CTX_check_private_key(context) != 1:
        raise_tls("the server's key does not belong to its certificate")
    ERR_clear_error()
    return 0


cdef int refuse_password(char* buffer, int size, int is_writing, void* argument) noexcept nogil:
    """Say that a password was asked for; without this, OpenSSL asks whoever sits at the terminal."""
    if argument != NULL:
        (<bint*> argument)[0] = True
    return -1


cdef int load_authorities(SSL_CTX* context, bytes authorities) except -1:
    cdef X509_STORE* store = SSL_CTX_get_cert_store(context)
    cdef stack_name* names = sk_X509_NAME_new_null()
    cdef BIO* source = open_pem(authorities)
    cdef X509* one = read_certificate(source)
    cdef int count = 0, taken = 1
    while one != NULL and taken == 1:
        taken = X509_STORE_add_cert(store, one)
        sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(one)))
        X509_free(one)
        count += 1
        one = read_certificate(source) if taken == 1 else NULL
    BIO_free(source)
    SSL_CTX_set_client_CA_list(context, names)
    if taken != 1:
        raise_tls("the clients' authorities")
    check_end(count, "the clients' authorities")
    # Whoever is listed is trusted, also an intermediate authority without the one above; as by gRPC and Envoy.
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN)
    return 0


cdef int load_revoked(X509_STORE* store, bytes crl) except -1:
    cdef BIO* source = open_pem(crl)
    cdef X509_CRL* one = PEM_read_bio_X509_CRL(source, NULL, refuse_password, NULL)
    cdef int count = 0, taken = 1
    cdef bint is_current = True
    while one != NULL and taken == 1:
        is_current = is_current and is_list_current(one)
        taken = X509_STORE_add_crl(store, one)
        X509_CRL_free(one)
        count += 1
        one = PEM_read_bio_X509_CRL(source, NULL, refuse_password, NULL) if taken == 1 else NULL
    BIO_free(source)
    if taken != 1:
        raise_tls("the lists of revoked certificates")
    check_end(count, "the lists of revoked certificates")
    if not is_current:
        raise TlsError("the lists of revoked certificates: one is past its next update, or not valid yet")
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
    return 0


cdef bint is_list_current(const X509_CRL* crl) noexcept nogil:
    cdef const ASN1_TIME* ends = X509_CRL_get0_nextUpdate(crl)
    return X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) < 0 and (ends == NULL or X509_cmp_current_time(ends) > 0)


cdef X509* read_certificate(BIO* source) noexcept nogil:
    """Return the next certificate; NULL at the end, and where something is wrong, which check_end tells apart."""
    return PEM_read_bio_X509(source, NULL, refuse_password, NULL)


cdef int check_end(int count, str subject) except -1:
    """Raise TlsError unless something was read and reading ended because there is no more; half a file is none."""
    cdef unsigned long code = ERR_peek_last_error()
    if count == 0 or ERR_GET_LIB(code) != ERR_LIB_PEM or ERR_GET_REASON(code) != PEM_R_NO_START_LINE:
        raise_tls(subject)
    ERR_clear_error()
    return 0


cdef int copy_names(tls_context* made, names) except -1:
    if not names:
        return 0
    made.allowed = <char**> calloc(len(names) + 1, sizeof(char*))
    if made.allowed == NULL:
        raise MemoryError
    for index, name in enumerate(names):
        made.allowed[index] = copy_text(name)
    return 0


cdef char* copy_text(str text) except NULL:
    cdef bytes encoded = text.encode()
    cdef char* copied = <char*> calloc(len(encoded) + 1, 1)
    if copied == NULL:
        raise MemoryError
    memcpy(copied, <const char*> encoded, len(encoded))
    return copied


cdef int raise_tls(str subject) except -1:
    """Raise TlsError with OpenSSL's own words, of which the thread's queue is left empty."""
    cdef char[ERROR_TEXT_BYTES] text
    cdef unsigned long code = ERR_get_error()
    if code == 0:
        raise TlsError(f"{subject}: OpenSSL does not say why")
    ERR_error_string_n(code, text, ERROR_TEXT_BYTES)
    ERR_clear_error()
    raise TlsError(f"{subject}: {text.decode('ascii', 'replace')}")
