"""The digest of a key and of its caller, for whom the parts stand that outlive a certificate and a token.

The peer's own names are one of them, so that nothing depends on who may speak for others: a client that claims to forward
for somebody is still another caller than the gateway that does.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from kernels.openssl cimport (
    EVP_DigestFinal_ex, EVP_DigestInit_ex, EVP_DigestUpdate, EVP_MD_CTX, EVP_MD_CTX_free, EVP_MD_CTX_new,
)
from kernels.token_subject cimport decode_base64url, find_subject, token_subject


cdef bint is_key(bytes_view key) noexcept nogil:
    """Whether it has 1 to 255 bytes, all of them visible ASCII."""
    cdef size_t position
    if key.size == 0 or key.size > MAX_KEY_BYTES:
        return False
    for position in range(key.size):
        if not 0x21 <= key.data[position] <= 0x7E:
            return False
    return True


cdef int digest_caller(const EVP_MD* digest, uint64_t seed, const keyed_caller* caller, uint8_t* made) noexcept nogil:
    """Write the SHA-256 of a caller and its key. 0, or -1 without memory.

    With a seed that nobody knows, so that nobody finds keys that meet in one bucket of the table.
    """
    cdef EVP_MD_CTX* state = EVP_MD_CTX_new()
    cdef int failed = -1
    if state == NULL:
        return -1
    if (EVP_DigestInit_ex(state, digest, NULL) == 1 and EVP_DigestUpdate(state, &seed, sizeof(seed)) == 1
            and add_part(state, c'p', caller.peer) == 0 and add_forwarded(state, caller.forwarded) == 0
            and add_token(state, caller.token) == 0 and add_part(state, c'k', caller.key) == 0
            and EVP_DigestFinal_ex(state, made, NULL) == 1):
        failed = 0
    EVP_MD_CTX_free(state)
    return failed


cdef int add_part(EVP_MD_CTX* state, uint8_t kind, bytes_view part) noexcept nogil:
    """What it is and its size come before it, so that no two lists of parts have the same bytes."""
    cdef uint64_t[2] head
    head[0] = kind
    head[1] = part.size
    if EVP_DigestUpdate(state, head, sizeof(head)) != 1:
        return -1
    return 0 if part.size == 0 or EVP_DigestUpdate(state, part.data, part.size) == 1 else -1


cdef int add_forwarded(EVP_MD_CTX* state, bytes_view header) noexcept nogil:
    """The names of URI; the certificate's hash beside them changes with each renewal. Without a name, all of it.

    Envoy writes URI= with nothing behind it for a certificate that has none.
    """
    cdef bytes_view rest = header, pair
    cdef size_t found = 0
    while rest.size > 0:
        pair = take_pair(&rest)
        if pair.size > 4 and is_uri(pair.data):
            found += 1
            if add_part(state, c'u', bytes_view(pair.data + 4, pair.size - 4)) != 0:
                return -1
    return add_part(state, c'f', header) if found == 0 else 0


cdef bytes_view take_pair(bytes_view* rest) noexcept nogil:
    """Cut the next of Envoy's pairs off: they are parted by semicolons and commas, but for those within quotes."""
    cdef bytes_view pair = rest[0]
    cdef size_t position
    cdef bint is_quoted = False
    for position in range(rest.size):
        if rest.data[position] == c'"':
            is_quoted = not is_quoted
        elif not is_quoted and (rest.data[position] == c';' or rest.data[position] == c','):
            pair.size = position
            break
    position = min(pair.size + 1, rest.size)
    rest.data += position
    rest.size -= position
    return pair


cdef inline bint is_uri(const uint8_t* pair) noexcept nogil:
    return (pair[0] | 32 == c'u' and pair[1] | 32 == c'r' and pair[2] | 32 == c'i' and pair[3] == c'=')


cdef int add_token(EVP_MD_CTX* state, bytes_view token) noexcept nogil:
    """Issuer and subject, which a renewed token has in common with the one before; of one without them, all of it."""
    cdef uint8_t* claims
    cdef token_subject found
    cdef int failed
    if token.size == 0:
        return 0
    claims = <uint8_t*> malloc(token.size)
    if claims == NULL:
        return -1
    found = find_subject(bytes_view(claims, decode_base64url(token, claims)))
    if found.issuer.size == 0 or found.subject.size == 0:
        failed = add_part(state, c't', token)
    else:
        failed = add_part(state, c'i', found.issuer) | add_part(state, c's', found.subject)
    free(claims)
    return failed
