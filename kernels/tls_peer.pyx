"""A peer's certificate: judged by a context at any time, and described to Python in the words of grpcio's auth_context."""

import socket

from libc.stdlib cimport calloc, free
from libc.string cimport strlen

from kernels.openssl cimport *
from kernels.sync cimport int_add

cdef enum:
    MAX_SPIFFE_ID_BYTES = 2048
    MAX_TRUST_DOMAIN_BYTES = 255

# By kind of alternative name, grpcio's property for it.
NAME_PROPERTIES = {GEN_URI: "peer_uri", GEN_DNS: "peer_dns", GEN_EMAIL: "peer_email", GEN_IPADD: "peer_ip"}


# ---- judged


cdef int judge_peer(const tls_context* context, SSL* ssl, int when) noexcept nogil:
    """Judge a client's certificate by a context; `when` is an occasion. Returns a verdict."""
    cdef X509* certificate = SSL_get0_peer_certificate(ssl)
    if not context.asks:
        return PEER_ALLOWED
    if certificate == NULL:
        if context.demands:
            return PEER_NOT_TRUSTED
        return PEER_ALLOWED if context.allowed == NULL else PEER_NOT_ALLOWED
    if when != FULL_HANDSHAKE and not is_trusted(context, ssl, certificate, when):
        return PEER_NOT_TRUSTED
    if context.allowed == NULL or carries_name(certificate, context.allowed):
        return PEER_ALLOWED
    return PEER_NOT_ALLOWED


cdef bint is_trusted(const tls_context* context, SSL* ssl, X509* certificate, int when) noexcept nogil:
    cdef X509_STORE_CTX* check = X509_STORE_CTX_new()
    cdef bint trusted = False
    if check != NULL and X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(context.ssl), certificate,
                                             SSL_get_peer_cert_chain(ssl)) == 1:
        X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_CLIENT)
        if when == NEW_TRUST:
            X509_STORE_CTX_set_flags(check, X509_V_FLAG_NO_CHECK_TIME)
        trusted = X509_verify_cert(check) == 1
    X509_STORE_CTX_free(check)
    ERR_clear_error()
    return trusted


cdef bint carries_name(const X509* certificate, char** allowed) noexcept nogil:
    cdef stack_general_name* names = <stack_general_name*> X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL)
    cdef ASN1_STRING* value
    cdef char** wanted
    cdef int index, kind
    cdef bint found = False
    ERR_clear_error()
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


# ---- kept


cdef tls_peer* read_peer(SSL* ssl) noexcept nogil:
    """Return what a finished handshake says, with one reference; NULL without memory."""
    cdef tls_peer* made = <tls_peer*> calloc(1, sizeof(tls_peer))
    if made == NULL:
        return NULL
    made.references = 1
    made.certificate = SSL_get0_peer_certificate(ssl)
    if made.certificate != NULL:
        X509_up_ref(made.certificate)
    if sk_X509_num(SSL_get_peer_cert_chain(ssl)) > 0:
        made.chain = X509_chain_up_ref(SSL_get_peer_cert_chain(ssl))
    made.version = SSL_get_version(ssl)
    made.is_resumed = SSL_session_reused(ssl) == 1
    return made


cdef tls_peer* share_peer(tls_peer* peer) noexcept nogil:
    """Return the peer with one more reference; NULL stays NULL."""
    if peer != NULL:
        int_add(&peer.references, 1)
    return peer


cdef void release_peer(tls_peer* peer) noexcept nogil:
    """Give a reference back; the last one frees the peer."""
    if peer == NULL or int_add(&peer.references, -1) > 0:
        return
    X509_free(peer.certificate)
    sk_X509_pop_free(peer.chain, X509_free)
    free(peer)


# ---- described


cdef dict describe_peer(const tls_peer* peer):
    """Return property name -> list of bytes, in grpcio's order; without the key exchange, which goes by other names."""
    if peer == NULL:
        return {"transport_security_type": [b"insecure"], "security_level": [b"TSI_SECURITY_NONE"]}
    described = {"transport_security_type": [b"ssl"]}
    if peer.certificate != NULL:
        described.update(describe_certificate(peer.certificate))
    if peer.chain != NULL:
        described["x509_pem_cert_chain"] = [
            b"".join([write_pem(sk_X509_value(peer.chain, index)) for index in range(sk_X509_num(peer.chain))])]
    described["security_level"] = [b"TSI_PRIVACY_AND_INTEGRITY"]
    described["ssl_session_reused"] = [b"true" if peer.is_resumed else b"false"]
    described["ssl_tls_version"] = [<bytes> peer.version]
    uris = described.get("peer_uri", ())
    if len(uris) == 1 and is_spiffe_id(uris[0]):
        described["peer_spiffe_id"] = uris
    ERR_clear_error()
    return described


cdef dict describe_certificate(X509* certificate):
    described = {
        "x509_subject": [write_subject(certificate)],
        "x509_common_name": [read_common_name(certificate)],
        "x509_pem_cert": [write_pem(certificate)],
    }
    for kind, name in read_names(certificate):
        described.setdefault("x509_subject_alternative_name", []).append(name)
        if kind in NAME_PROPERTIES:
            described.setdefault(NAME_PROPERTIES[kind], []).append(name)
    return described


cdef bytes read_common_name(X509* certificate):
    """The first, in UTF-8; empty without any."""
    cdef X509_NAME* subject = X509_get_subject_name(certificate)
    cdef int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
    cdef unsigned char* text = NULL
    cdef int size
    if index < 0:
        return b""
    size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)))
    if size < 0:
        return b""
    try:
        return (<char*> text)[:size]
    finally:
        OPENSSL_free(text)


cdef bytes write_subject(X509* certificate):
    cdef BIO* target = open_memory()
    X509_NAME_print_ex(target, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253)
    return take_memory(target)


cdef bytes write_pem(X509* certificate):
    cdef BIO* target = open_memory()
    PEM_write_bio_X509(target, certificate)
    return take_memory(target)


cdef BIO* open_memory() except NULL:
    cdef BIO* target = BIO_new(BIO_s_mem())
    if target == NULL:
        raise MemoryError
    return target


cdef bytes take_memory(BIO* target):
    cdef char* data = NULL
    cdef long size = BIO_get_mem_data(target, &data)
    try:
        return data[:size] if size > 0 else b""
    finally:
        BIO_free(target)


cdef list read_names(X509* certificate):
    """The subject's alternative names, in their order, as pairs of kind and text."""
    cdef stack_general_name* names = <stack_general_name*> X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL)
    cdef ASN1_STRING* value
    cdef int index, kind
    found = []
    try:
        for index in range(sk_GENERAL_NAME_num(names)):
            value = <ASN1_STRING*> GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, index), &kind)
            if kind in NAME_PROPERTIES:
                found.append((kind, format_name(kind, (<const char*> ASN1_STRING_get0_data(value))[
                    :ASN1_STRING_length(value)])))
            else:
                found.append((kind, b"other types of SAN"))
    finally:
        GENERAL_NAMES_free(names)
    return found


cdef bytes format_name(int kind, bytes raw):
    """An address as text; other names are text already."""
    if kind != GEN_IPADD or len(raw) not in (4, 16):
        return raw
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw).encode()


def is_spiffe_id(bytes uri not None):
    """Whether a URI is a SPIFFE ID of a workload, as far as grpcio looks."""
    scheme, _, rest = uri.partition(b"://")
    domain, slash, path = rest.partition(b"/")
    return (scheme == b"spiffe" and len(uri) <= MAX_SPIFFE_ID_BYTES and 0 < len(domain) <= MAX_TRUST_DOMAIN_BYTES
            and path != b"")
