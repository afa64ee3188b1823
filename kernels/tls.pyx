"""TLS with OpenSSL: contexts made from PEM, application protocol h2, and clients' certificates judged at any time.

A context never changes. Whoever wants other certificates makes another one: sessions belong to the context that made
them, so that what was trusted under an old one is not resumed under the new.
"""

from dataclasses import dataclass

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen

from kernels.openssl cimport *
from kernels.sync cimport int_add

cdef enum:
    CACHED_SESSIONS = 20480
    ERROR_TEXT_BYTES = 256
    NAME_BYTES = 256

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
        Revoked certificates of every authority in `client_ca`, PEM.
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
            load_authorities(made.ssl, settings.client_ca, settings.crl)
            SSL_CTX_set_verify(made.ssl, SSL_VERIFY_PEER | (
                SSL_VERIFY_FAIL_IF_NO_PEER_CERT if settings.require_client_certificate else 0), NULL)
        copy_names(made, settings.allowed_names)
        made.refusal = copy_text(settings.refusal)
    except BaseException:
        release_context(made)
        raise
    return made


cdef int set_protocol(SSL_CTX* context) except -1:
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION)
    # Sessions are kept here and not in tickets: a resumed one then has the client's whole chain, to be judged again.
    SSL_CTX_set_options(
        context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE)
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_SERVER)
    SSL_CTX_sess_set_cache_size(context, CACHED_SESSIONS)
    SSL_CTX_set_session_id_context(context, b"sluice", 6)
    SSL_CTX_set_mode(
        context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS)
    SSL_CTX_set_alpn_select_cb(context, select_h2, NULL)
    # Of TLS 1.2 only what HTTP/2 allows (RFC 9113, 9.2.2).
    if SSL_CTX_set_cipher_list(context, CIPHERS) != 1:
        raise_tls("ciphers")
    return 0


cdef int select_h2(SSL* ssl, const unsigned char** out, unsigned char* size, const unsigned char* offered,
                   unsigned int offered_size, void* argument) noexcept nogil:
    if SSL_select_next_proto(<unsigned char**> out, size, H2_PROTOCOL, 3, offered,
                             offered_size) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_OK


cdef BIO* open_pem(bytes text) except NULL:
    cdef BIO* source = BIO_new_mem_buf(<const char*> text, <int> len(text))
    if source == NULL:
        raise MemoryError
    return source


cdef int load_identity(SSL_CTX* context, bytes certificate, bytes key) except -1:
    cdef BIO* source = open_pem(certificate)
    cdef X509* one = PEM_read_bio_X509(source, NULL, NULL, NULL)
    cdef EVP_PKEY* private
    cdef int count = 0
    while one != NULL:
        if count == 0:
            SSL_CTX_use_certificate(context, one)
            X509_free(one)
        else:
            SSL_CTX_add_extra_chain_cert(context, one)
        count += 1
        one = PEM_read_bio_X509(source, NULL, NULL, NULL)
    BIO_free(source)
    if count == 0:
        raise_tls("the server's certificate")
    ERR_clear_error()
    source = open_pem(key)
    private = PEM_read_bio_PrivateKey(source, NULL, NULL, NULL)
    BIO_free(source)
    if private == NULL:
        raise_tls("the server's key")
    SSL_CTX_use_PrivateKey(context, private)
    EVP_PKEY_free(private)
    if SSL_CTX_check_private_key(context) != 1:
        raise_tls("the server's key does not belong to its certificate")
    return 0


cdef int load_authorities(SSL_CTX* context, bytes authorities, crl) except -1:
    cdef X509_STORE* store = SSL_CTX_get_cert_store(context)
    cdef stack_name* names = sk_X509_NAME_new_null()
    cdef BIO* source = open_pem(authorities)
    cdef X509* one = PEM_read_bio_X509(source, NULL, NULL, NULL)
    cdef int count = 0
    while one != NULL:
        X509_STORE_add_cert(store, one)
        sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(one)))
        X509_free(one)
        count += 1
        one = PEM_read_bio_X509(source, NULL, NULL, NULL)
    BIO_free(source)
    SSL_CTX_set_client_CA_list(context, names)
    if count == 0:
        raise_tls("the clients' authorities")
    ERR_clear_error()
    if crl is not None:
        load_revoked(store, crl)
    return 0


cdef int load_revoked(X509_STORE* store, bytes crl) except -1:
    cdef BIO* source = open_pem(crl)
    cdef X509_CRL* one = PEM_read_bio_X509_CRL(source, NULL, NULL, NULL)
    cdef int count = 0
    while one != NULL:
        X509_STORE_add_crl(store, one)
        X509_CRL_free(one)
        count += 1
        one = PEM_read_bio_X509_CRL(source, NULL, NULL, NULL)
    BIO_free(source)
    if count == 0:
        raise_tls("the list of revoked certificates")
    ERR_clear_error()
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
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
        raise TlsError(f"{subject}: no certificate or key in PEM")
    ERR_error_string_n(code, text, ERROR_TEXT_BYTES)
    ERR_clear_error()
    raise TlsError(f"{subject}: {text.decode('ascii', 'replace')}")


# ---- peers


cdef int judge_peer(const tls_context* context, SSL* ssl) noexcept nogil:
    """Judge a client's certificate by this context, now; a PEER_… code. For fresh, resumed and long-lived connections."""
    cdef X509* certificate = SSL_get0_peer_certificate(ssl)
    cdef X509_STORE_CTX* check
    cdef bint trusted = False
    if not context.asks:
        return PEER_ALLOWED
    if certificate == NULL:
        return PEER_ALLOWED if context.allowed == NULL else PEER_NOT_ALLOWED
    check = X509_STORE_CTX_new()
    if check != NULL and X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(context.ssl), certificate,
                                             SSL_get_peer_cert_chain(ssl)) == 1:
        X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_CLIENT)
        trusted = X509_verify_cert(check) == 1
    X509_STORE_CTX_free(check)
    ERR_clear_error()
    if not trusted:
        return PEER_NOT_TRUSTED
    if context.allowed == NULL or carries_name(certificate, context.allowed):
        return PEER_ALLOWED
    return PEER_NOT_ALLOWED


cdef bint carries_name(const X509* certificate, char** allowed) noexcept nogil:
    cdef stack_general_name* names = <stack_general_name*> X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL)
    cdef ASN1_STRING* value
    cdef char** wanted
    cdef int index, kind
    cdef bint found = False
    if names == NULL:
        return False
    for index in range(sk_GENERAL_NAME_num(names)):
        value = <ASN1_STRING*> GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, index), &kind)
        wanted = allowed
        while kind == GEN_URI and wanted[0] != NULL and not found:
            found = equals_text(value, wanted[0])
            wanted += 1
    GENERAL_NAMES_free(names)
    return found


cdef bint equals_text(const ASN1_STRING* value, const char* text) noexcept nogil:
    cdef const unsigned char* data = ASN1_STRING_get0_data(value)
    cdef int size = ASN1_STRING_length(value), position
    if <size_t> size != strlen(text):
        return False
    for position in range(size):
        if data[position] != <unsigned char> text[position]:
            return False
    return True


cdef dict describe_peer(X509* certificate, bint has_tls):
    """Return what grpcio's auth_context has for the same peer: property name -> list of bytes."""
    described = {"transport_security_type": [b"ssl" if has_tls else b"insecure"]}
    if certificate == NULL:
        return described
    common = read_common_name(certificate)
    if common is not None:
        described["x509_common_name"] = [common]
    described["x509_pem_cert"] = [write_pem(certificate)]
    described["x509_subject_alternative_name"] = read_names(certificate)
    return described


cdef bytes read_common_name(X509* certificate):
    cdef char[NAME_BYTES] text
    cdef int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text, NAME_BYTES)
    return text[:size] if size >= 0 else None


cdef bytes write_pem(X509* certificate):
    cdef BIO* target = BIO_new(BIO_s_mem())
    cdef char* data = NULL
    cdef long size
    if target == NULL:
        raise MemoryError
    PEM_write_bio_X509(target, certificate)
    size = BIO_get_mem_data(target, &data)
    written = data[:size]
    BIO_free(target)
    return written


cdef list read_names(X509* certificate):
    """The subject's alternative names of the kinds that are text, in their order."""
    cdef stack_general_name* names = <stack_general_name*> X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL)
    cdef ASN1_STRING* value
    cdef int index, kind
    found = []
    if names == NULL:
        return found
    for index in range(sk_GENERAL_NAME_num(names)):
        value = <ASN1_STRING*> GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, index), &kind)
        if kind in (GEN_URI, GEN_DNS, GEN_EMAIL):
            found.append((<const char*> ASN1_STRING_get0_data(value))[:ASN1_STRING_length(value)])
        elif kind == GEN_IPADD:
            found.append(format_address((<const char*> ASN1_STRING_get0_data(value))[:ASN1_STRING_length(value)]))
    GENERAL_NAMES_free(names)
    return found


cdef bytes format_address(bytes raw):
    import ipaddress

    return str(ipaddress.ip_address(raw)).encode() if len(raw) in (4, 16) else b""
