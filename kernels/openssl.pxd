"""Declarations of OpenSSL 3, as far as the transport and the response cache use it."""

from libc.stdint cimport uint64_t


cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_CRL:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct X509_NAME_ENTRY:
        pass
    ctypedef struct ASN1_TIME:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct ASN1_STRING:
        pass
    ctypedef struct stack_x509 "STACK_OF(X509)":
        pass
    ctypedef struct stack_name "STACK_OF(X509_NAME)":
        pass

    int SSL_ERROR_NONE, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN
    int SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    int TLS1_2_VERSION
    int SSL_SESS_CACHE_SERVER
    int SSL_SENT_SHUTDOWN, SSL_RECEIVED_SHUTDOWN
    long SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_RELEASE_BUFFERS
    long SSL_MODE_NO_AUTO_CHAIN
    uint64_t SSL_OP_NO_TICKET, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_COMPRESSION, SSL_OP_CIPHER_SERVER_PREFERENCE
    uint64_t SSL_OP_IGNORE_UNEXPECTED_EOF
    int SSL_TLSEXT_ERR_OK, SSL_TLSEXT_ERR_ALERT_FATAL
    int SSL_CLIENT_HELLO_SUCCESS, SSL_CLIENT_HELLO_ERROR, SSL_AD_NO_APPLICATION_PROTOCOL
    unsigned int TLSEXT_TYPE_application_layer_protocol_negotiation
    int OPENSSL_NPN_NEGOTIATED
    unsigned long X509_V_FLAG_CRL_CHECK, X509_V_FLAG_CRL_CHECK_ALL, X509_V_FLAG_NO_CHECK_TIME, X509_V_FLAG_PARTIAL_CHAIN

    const SSL_METHOD* TLS_server_method() noexcept
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method) noexcept
    void SSL_CTX_free(SSL_CTX* context) noexcept
    int SSL_CTX_up_ref(SSL_CTX* context) noexcept
    int SSL_CTX_set_min_proto_version(SSL_CTX* context, int version) noexcept
    uint64_t SSL_CTX_set_options(SSL_CTX* context, uint64_t options) noexcept
    long SSL_CTX_set_mode(SSL_CTX* context, long mode) noexcept
    int SSL_CTX_set_cipher_list(SSL_CTX* context, const char* text) noexcept
    void SSL_CTX_set_verify(SSL_CTX* context, int mode, void* callback) noexcept
    int SSL_CTX_set_session_id_context(SSL_CTX* context, const unsigned char* name, unsigned int size) noexcept
    long SSL_CTX_set_session_cache_mode(SSL_CTX* context, long mode) noexcept
    long SSL_CTX_sess_set_cache_size(SSL_CTX* context, long size) noexcept
    int SSL_CTX_set_num_tickets(SSL_CTX* context, size_t count) noexcept
    void SSL_CTX_flush_sessions(SSL_CTX* context, long now) noexcept
    void SSL_CTX_sess_set_new_cb(SSL_CTX* context, int (*keep)(SSL* ssl, SSL_SESSION* made) noexcept nogil) noexcept
    long SSL_SESSION_get_timeout(const SSL_SESSION* session) noexcept
    long SSL_SESSION_set_timeout(SSL_SESSION* session, long seconds) noexcept
    int SSL_CTX_use_certificate(SSL_CTX* context, X509* certificate) noexcept
    long SSL_CTX_add1_chain_cert(SSL_CTX* context, X509* certificate) noexcept
    int SSL_CTX_use_PrivateKey(SSL_CTX* context, EVP_PKEY* key) noexcept
    int SSL_CTX_check_private_key(const SSL_CTX* context) noexcept
    X509_STORE* SSL_CTX_get_cert_store(const SSL_CTX* context) noexcept
    void SSL_CTX_set_client_CA_list(SSL_CTX* context, stack_name* names) noexcept
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX* context,
        int (*select)(SSL* ssl, const unsigned char** out, unsigned char* size, const unsigned char* offered,
                      unsigned int offered_size, void* argument) noexcept nogil,
        void* argument) noexcept
    void SSL_CTX_set_client_hello_cb(
        SSL_CTX* context, int (*check)(SSL* ssl, int* alert, void* argument) noexcept nogil, void* argument) noexcept
    int SSL_client_hello_get0_ext(SSL* ssl, unsigned int kind, const unsigned char** data, size_t* size) noexcept
    int SSL_select_next_proto(unsigned char** out, unsigned char* size, const unsigned char* server,
                              unsigned int server_size, const unsigned char* client, unsigned int client_size) noexcept
    SSL* SSL_new(SSL_CTX* context) noexcept
    void SSL_free(SSL* ssl) noexcept
    int SSL_set_fd(SSL* ssl, int descriptor) noexcept
    void SSL_set_accept_state(SSL* ssl) noexcept
    int SSL_do_handshake(SSL* ssl) noexcept
    int SSL_read(SSL* ssl, void* data, int size) noexcept
    int SSL_write(SSL* ssl, const void* data, int size) noexcept
    int SSL_shutdown(SSL* ssl) noexcept
    void SSL_set_shutdown(SSL* ssl, int mode) noexcept
    int SSL_get_error(const SSL* ssl, int result) noexcept
    int SSL_session_reused(const SSL* ssl) noexcept
    const char* SSL_get_version(const SSL* ssl) noexcept
    X509* SSL_get0_peer_certificate(const SSL* ssl) noexcept
    stack_x509* SSL_get_peer_cert_chain(const SSL* ssl) noexcept

    X509_STORE_CTX* X509_STORE_CTX_new() noexcept
    void X509_STORE_CTX_free(X509_STORE_CTX* context) noexcept
    int X509_STORE_CTX_init(X509_STORE_CTX* context, X509_STORE* store, X509* certificate, stack_x509* chain) noexcept
    int X509_STORE_CTX_set_purpose(X509_STORE_CTX* context, int purpose) noexcept
    void X509_STORE_CTX_set_flags(X509_STORE_CTX* context, unsigned long flags) noexcept
    int X509_verify_cert(X509_STORE_CTX* context) noexcept
    int X509_STORE_add_cert(X509_STORE* store, X509* certificate) noexcept
    int X509_STORE_add_crl(X509_STORE* store, X509_CRL* crl) noexcept
    int X509_STORE_set_flags(X509_STORE* store, unsigned long flags) noexcept
    void X509_free(X509* certificate) noexcept
    void X509_CRL_free(X509_CRL* crl) noexcept
    const ASN1_TIME* X509_CRL_get0_lastUpdate(const X509_CRL* crl) noexcept
    const ASN1_TIME* X509_CRL_get0_nextUpdate(const X509_CRL* crl) noexcept
    const ASN1_TIME* X509_get0_notAfter(const X509* certificate) noexcept
    int X509_cmp_current_time(const ASN1_TIME* moment) noexcept
    int ASN1_TIME_diff(int* days, int* seconds, const ASN1_TIME* begin, const ASN1_TIME* end) noexcept
    stack_x509* X509_chain_up_ref(stack_x509* chain) noexcept
    int sk_X509_num(const stack_x509* chain) noexcept
    X509* sk_X509_value(const stack_x509* chain, int index) noexcept
    void sk_X509_pop_free(stack_x509* chain, void (*release)(X509* certificate) noexcept nogil) noexcept
    void EVP_PKEY_free(EVP_PKEY* key) noexcept
    X509_NAME* X509_get_subject_name(const X509* certificate) noexcept
    X509_NAME* X509_NAME_dup(const X509_NAME* name) noexcept
    int X509_NAME_get_index_by_NID(const X509_NAME* name, int nid, int after) noexcept
    X509_NAME_ENTRY* X509_NAME_get_entry(const X509_NAME* name, int index) noexcept
    ASN1_STRING* X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY* entry) noexcept
    int ASN1_STRING_to_UTF8(unsigned char** text, const ASN1_STRING* source) noexcept
    void OPENSSL_free(void* used) noexcept
    int X509_NAME_print_ex(BIO* target, const X509_NAME* name, int indent, unsigned long flags) noexcept
    unsigned long XN_FLAG_RFC2253
    int NID_commonName, NID_subject_alt_name
    stack_name* sk_X509_NAME_new_null() noexcept
    int sk_X509_NAME_push(stack_name* names, X509_NAME* name) noexcept
    void* X509_get_ext_d2i(const X509* certificate, int nid, int* critical, int* index) noexcept
    const unsigned char* ASN1_STRING_get0_data(const ASN1_STRING* text) noexcept
    int ASN1_STRING_length(const ASN1_STRING* text) noexcept

cdef extern from "openssl/pem.h" nogil:
    ctypedef int (*pem_password)(char* buffer, int size, int is_writing, void* argument) noexcept nogil
    X509* PEM_read_bio_X509(BIO* source, X509** out, pem_password callback, void* argument) noexcept
    X509_CRL* PEM_read_bio_X509_CRL(BIO* source, X509_CRL** out, pem_password callback, void* argument) noexcept
    EVP_PKEY* PEM_read_bio_PrivateKey(BIO* source, EVP_PKEY** out, pem_password callback, void* argument) noexcept
    int PEM_R_NO_START_LINE
    int PEM_write_bio_X509(BIO* target, X509* certificate) noexcept

cdef extern from "openssl/bio.h" nogil:
    BIO* BIO_new_mem_buf(const void* data, int size) noexcept
    BIO* BIO_new(const void* method) noexcept
    const void* BIO_s_mem() noexcept
    long BIO_get_mem_data(BIO* source, char** data) noexcept
    int BIO_free(BIO* used) noexcept

cdef extern from "openssl/err.h" nogil:
    unsigned long ERR_get_error() noexcept
    unsigned long ERR_peek_last_error() noexcept
    int ERR_GET_LIB(unsigned long code) noexcept
    int ERR_GET_REASON(unsigned long code) noexcept
    int ERR_LIB_PEM
    void ERR_clear_error() noexcept
    void ERR_error_string_n(unsigned long code, char* buffer, size_t size) noexcept

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    ctypedef struct EVP_MD_CTX:
        pass
    EVP_MD* EVP_MD_fetch(void* context, const char* algorithm, const char* properties) noexcept
    void EVP_MD_free(EVP_MD* digest) noexcept
    EVP_MD_CTX* EVP_MD_CTX_new() noexcept
    void EVP_MD_CTX_free(EVP_MD_CTX* state) noexcept
    int EVP_DigestInit_ex(EVP_MD_CTX* state, const EVP_MD* digest, void* engine) noexcept
    int EVP_DigestUpdate(EVP_MD_CTX* state, const void* data, size_t size) noexcept
    int EVP_DigestFinal_ex(EVP_MD_CTX* state, unsigned char* digest, unsigned int* size) noexcept

cdef extern from "openssl/x509.h" nogil:
    int X509_up_ref(X509* certificate) noexcept
    int X509_digest(const X509* certificate, const EVP_MD* kind, unsigned char* digest, unsigned int* size) noexcept

cdef extern from "openssl/x509v3.h" nogil:
    ctypedef struct stack_general_name "GENERAL_NAMES":
        pass
    ctypedef struct GENERAL_NAME:
        pass
    int X509_PURPOSE_SSL_CLIENT
    int sk_GENERAL_NAME_num(const stack_general_name* names) noexcept
    GENERAL_NAME* sk_GENERAL_NAME_value(const stack_general_name* names, int index) noexcept
    void GENERAL_NAMES_free(stack_general_name* names) noexcept
    void* GENERAL_NAME_get0_value(const GENERAL_NAME* name, int* kind) noexcept
    int GEN_URI, GEN_DNS, GEN_IPADD, GEN_EMAIL
