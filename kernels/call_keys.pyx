"""Digests a call's key and its caller, from its headers and the certificate of its peer, into the call."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from kernels.call cimport append_bytes, append_field, free_buffer
from kernels.caller_key cimport KEY_TEXT, SWITCHED_OFF_TEXT, digest_caller, is_key, keyed_caller
from kernels.codec cimport bytes_view
from kernels.dispatch cimport engine_core
from kernels.headers cimport GRPC_INVALID_ARGUMENT, GRPC_RESOURCE_EXHAUSTED, GRPC_UNIMPLEMENTED
from kernels.idempotency cimport DIGEST_BYTES
from kernels.openssl cimport (
    ASN1_STRING, EVP_MD, GEN_DNS, GEN_EMAIL, GEN_IPADD, GEN_URI, X509, ASN1_STRING_get0_data, ASN1_STRING_length,
    ERR_clear_error, GENERAL_NAME_get0_value, GENERAL_NAMES_free, NID_subject_alt_name, X509_digest, X509_get_ext_d2i,
    sk_GENERAL_NAME_num, sk_GENERAL_NAME_value, stack_general_name,
)
from kernels.reply cimport fail_call
from kernels.tls_peer cimport tls_peer
from kernels.transport_state cimport byte_buffer


cdef int read_key(call* receiver) noexcept nogil:
    """Make the digest of a call that sends a key. 0, or -1 when it has been refused."""
    cdef engine_core* engine = <engine_core*> receiver.target.context
    cdef bytes_view key = bytes_view(receiver.key.data, receiver.key.size)
    if engine.keyed.max_bytes == 0:
        fail_call(receiver, GRPC_UNIMPLEMENTED, SWITCHED_OFF_TEXT)
    elif receiver.n_keys > 1 or not is_key(key):
        fail_call(receiver, GRPC_INVALID_ARGUMENT, KEY_TEXT)
    elif digest_call(receiver, engine, key) != 0:
        fail_call(receiver, GRPC_RESOURCE_EXHAUSTED, b"no memory for the request")
    else:
        return 0
    return -1


cdef int digest_call(call* receiver, engine_core* engine, bytes_view key) noexcept nogil:
    cdef byte_buffer peer = byte_buffer(NULL, 0, 0), forwarded = peer, token = peer
    cdef keyed_caller caller
    cdef int failed = (append_peer(&peer, receiver.home.peer, engine.keyed.digest)
                       | collect_fields(&receiver.metadata, b"x-forwarded-client-cert", 23, &forwarded)
                       | collect_fields(&receiver.metadata, b"sluice-token", 12, &token))
    if failed == 0:
        caller.peer = bytes_view(peer.data, peer.size)
        caller.forwarded = bytes_view(forwarded.data, forwarded.size)
        caller.token = bytes_view(token.data, token.size)
        caller.key = key
        failed = digest_caller(engine.keyed.digest, engine.gate.seed, &caller, receiver.caller_key)
    free_buffer(&peer)
    free_buffer(&forwarded)
    free_buffer(&token)
    return failed


cdef int collect_fields(const byte_buffer* metadata, const char* name, size_t name_size, byte_buffer* found) noexcept nogil:
    """Put the values of a field one behind the other, with a comma between. 0, or -1 without memory."""
    cdef size_t position = 0
    cdef uint32_t[2] sizes
    cdef const uint8_t* field
    while position < metadata.size:
        memcpy(sizes, metadata.data + position, sizeof(sizes))
        field = metadata.data + position + sizeof(sizes)
        position += sizeof(sizes) + sizes[0] + sizes[1]
        if sizes[0] != name_size or memcmp(field, name, name_size) != 0:
            continue
        if (found.size > 0 and append_bytes(found, b",", 1) != 0) or append_bytes(found, field + sizes[0], sizes[1]) != 0:
            return -1
    return 0


cdef int append_peer(byte_buffer* target, const tls_peer* peer, const EVP_MD* digest) noexcept nogil:
    """Say who is connected: the names in its certificate, or its digest where there are none. 0, or -1 without memory."""
    cdef unsigned char[DIGEST_BYTES] fingerprint
    cdef unsigned int size = DIGEST_BYTES
    if peer == NULL or peer.certificate == NULL:
        return 0
    if append_names(target, peer.certificate) != 0:
        return -1
    if target.size > 0:
        return 0
    if X509_digest(peer.certificate, digest, fingerprint, &size) != 1:
        return -1
    return append_bytes(target, fingerprint, size)


cdef int append_names(byte_buffer* target, const X509* certificate) noexcept nogil:
    cdef stack_general_name* names = <stack_general_name*> X509_get_ext_d2i(
        certificate, NID_subject_alt_name, NULL, NULL)
    cdef ASN1_STRING* value
    cdef int index, kind, failed = 0
    cdef uint8_t kind_byte
    ERR_clear_error()
    if names == NULL:
        return 0
    for index in range(sk_GENERAL_NAME_num(names)):
        value = <ASN1_STRING*> GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, index), &kind)
        if kind not in (GEN_URI, GEN_DNS, GEN_EMAIL, GEN_IPADD):
            # Others have a structure of their own.
            continue
        kind_byte = <uint8_t> kind
        failed |= append_field(target, &kind_byte, 1, ASN1_STRING_get0_data(value), ASN1_STRING_length(value))
    GENERAL_NAMES_free(names)
    return failed
