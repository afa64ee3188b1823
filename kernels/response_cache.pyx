"""A hash table with chains, its entries in the order of their use; one lock, held for moments and never for a copy."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from kernels.cached_tensors cimport unpack_reply
from kernels.openssl cimport (
    EVP_DigestFinal_ex, EVP_DigestInit_ex, EVP_DigestUpdate, EVP_MD_CTX, EVP_MD_CTX_free, EVP_MD_CTX_new, EVP_MD_fetch,
    EVP_MD_free,
)
from kernels.request cimport bound_tensor, reserve_reply
from kernels.sync cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from kernels.wire cimport DELIMITED, bytes_view, cursor, open_cursor, read_span, read_tag

cdef enum:
    EXPECTED_BYTES = 1024        # of an entry: the table has as many buckets as there can be of them
    MIN_BUCKETS = 64
    MAX_BUCKETS = 1 << 20
    ID_FIELD = 3                 # ModelInferResponse.id
    ID_TAG = 0x1A


cdef int open_cache(response_cache* made, int64_t max_bytes) noexcept nogil:
    """Make an empty cache; none for 0 bytes. 0, or -1 without memory (close_cache frees)."""
    cdef size_t buckets = MIN_BUCKETS
    memset(made, 0, sizeof(response_cache))
    if max_bytes == 0:
        return 0
    while buckets < MAX_BUCKETS and <int64_t> buckets * EXPECTED_BYTES < max_bytes:
        buckets *= 2
    pthread_mutex_init(&made.lock, NULL)
    made.max_bytes = max_bytes
    made.mask = buckets - 1
    made.buckets = <cached_reply**> calloc(buckets, sizeof(void*))
    # Once, since looking an algorithm up costs more than a short message's digest.
    made.digest = EVP_MD_fetch(NULL, b"SHA256", NULL)
    return 0 if made.buckets != NULL and made.digest != NULL else -1


cdef void close_cache(response_cache* used) noexcept nogil:
    """Free a cache that nobody uses any more; one of zeros is fine."""
    cdef cached_reply* entry = used.oldest
    cdef cached_reply* newer
    if used.max_bytes == 0:
        return
    while entry != NULL:
        newer = entry.newer
        free(entry)
        entry = newer
    free(used.buckets)
    EVP_MD_free(used.digest)
    pthread_mutex_destroy(&used.lock)
    memset(used, 0, sizeof(response_cache))


# ---- keys


cdef bint can_be_cached(const request* asked) noexcept nogil:
    """Tell whether a bound request is answered by its reply alone, and by nothing that is of this moment."""
    cdef int32_t index
    if asked.wants_timing:
        return False
    if asked.has_deliveries:
        for index in range(asked.n_outputs):
            if asked.deliveries[index].home != NULL:
                return False
    return True


cdef int make_key(const response_cache* cache, int64_t serial, const signature* accepted, request* asked) noexcept nogil:
    """Digest what the answer depends on into the request's cache_key. 0, or -1 where that cannot be read, or without memory."""
    cdef EVP_MD_CTX* state = EVP_MD_CTX_new()
    cdef int failed = -1
    if state == NULL:
        return -1
    if (EVP_DigestInit_ex(state, cache.digest, NULL) == 1 and EVP_DigestUpdate(state, &serial, sizeof(serial)) == 1
            and digest_inputs(state, accepted, asked) == 0 and digest_outputs(state, asked) == 0
            and EVP_DigestFinal_ex(state, asked.cache_key, NULL) == 1):
        failed = 0
    EVP_MD_CTX_free(state)
    return failed


cdef int digest_inputs(EVP_MD_CTX* state, const signature* accepted, const request* asked) noexcept nogil:
    """Sizes come before what they are of, so that no two lists of inputs have the same bytes."""
    cdef const bound_tensor* bound
    cdef int64_t[2] head
    cdef int32_t index, rank
    for index in range(accepted.core.n_inputs):
        bound = &asked.inputs[index]
        rank = accepted.bound[index].rank
        head[0] = -1 if bound.shape == NULL else rank
        head[1] = <int64_t> bound.size
        if EVP_DigestUpdate(state, head, sizeof(head)) != 1:
            return -1
        if bound.shape == NULL:
            continue
        if EVP_DigestUpdate(state, bound.shape, rank * sizeof(int64_t)) != 1:
            return -1
        # An input that stays in a GPU's memory has no bytes here.
        if bound.size > 0 and (bound.data == NULL or EVP_DigestUpdate(state, bound.data, bound.size) != 1):
            return -1
    return 0


cdef int digest_outputs(EVP_MD_CTX* state, const request* asked) noexcept nogil:
    cdef int64_t[2] wanted
    cdef int32_t index
    for index in range(asked.n_outputs):
        wanted[0] = asked.outputs[index]
        wanted[1] = asked.deliveries[index].classes if asked.has_deliveries else 0
        if EVP_DigestUpdate(state, wanted, sizeof(wanted)) != 1:
            return -1
    return 0


cdef inline cached_reply** find_bucket(response_cache* cache, const uint8_t* key) noexcept nogil:
    cdef uint64_t place
    memcpy(&place, key, sizeof(place))
    return &cache.buckets[place & cache.mask]


cdef cached_reply* find_entry(response_cache* cache, const uint8_t* key) noexcept nogil:
    """The entry of a key, or NULL; under the lock."""
    cdef cached_reply* entry = find_bucket(cache, key)[0]
    while entry != NULL and memcmp(entry.key, key, CACHE_KEY_BYTES) != 0:
        entry = entry.chained
    return entry


# ---- looking up


cdef bint find_reply(response_cache* cache, const signature* accepted, request* asked) noexcept nogil:
    """Answer a request, whose key has been made, from the cache; False when that has no answer, or no memory for it.

    A step of an ensemble gets its outputs as a run leaves them.
    """
    cdef cached_reply* entry
    cdef bint is_copied
    pthread_mutex_lock(&cache.lock)
    entry = find_entry(cache, asked.cache_key)
    if entry != NULL:
        entry.readers += 1
        unlink_use(cache, entry)
        link_newest(cache, entry)
    pthread_mutex_unlock(&cache.lock)
    if entry == NULL:
        return False
    if asked.kept == NULL:
        is_copied = copy_reply(entry, asked) == 0
    else:
        is_copied = unpack_reply(accepted, bytes_view(entry.content, entry.size), asked) == 0
    pthread_mutex_lock(&cache.lock)
    entry.readers -= 1
    if entry.is_out and entry.readers == 0:
        free(entry)
    pthread_mutex_unlock(&cache.lock)
    return is_copied


cdef int copy_reply(const cached_reply* entry, request* asked) noexcept nogil:
    """Write a reply with the request's own id. 0, or -1 without memory."""
    cdef bytes_view name = asked.view.id
    cdef uint8_t[12] head
    cdef size_t head_size = write_head(head, name.size) if name.size > 0 else 0
    cdef uint8_t* target = reserve_reply(asked, entry.size + head_size + name.size, 0)
    if target == NULL:
        return -1
    memcpy(target, entry.content, entry.before_id)
    target += entry.before_id
    memcpy(target, head, head_size)
    target += head_size
    if name.size > 0:
        memcpy(target, name.data, name.size)
        target += name.size
    memcpy(target, entry.content + entry.before_id, entry.size - entry.before_id)
    return 0


cdef size_t write_head(uint8_t* target, size_t size) noexcept nogil:
    """Write the id's tag and length; return how many bytes they take."""
    cdef size_t position = 1
    target[0] = ID_TAG
    while size >= 0x80:
        target[position] = <uint8_t> (size & 0x7F | 0x80)
        size >>= 7
        position += 1
    target[position] = <uint8_t> size
    return position + 1


# ---- keeping


cdef void keep_reply(response_cache* cache, int64_t serial, const uint8_t* key, bytes_view reply) noexcept nogil:
    """Keep a copy of a reply under a request's key; not one that is larger than the cache, nor without memory."""
    cdef cached_reply* made = copy_entry(serial, key, reply, cache.max_bytes)
    cdef cached_reply* outdated = NULL
    if made == NULL:
        return
    pthread_mutex_lock(&cache.lock)
    if find_entry(cache, made.key) != NULL:
        # The same was asked twice at a time.
        outdated = made
    else:
        link_entry(cache, made)
        while cache.bytes > cache.max_bytes:
            cache.evictions += 1
            remove_entry(cache, cache.oldest)
    pthread_mutex_unlock(&cache.lock)
    free(outdated)


cdef cached_reply* copy_entry(int64_t serial, const uint8_t* key, bytes_view reply, int64_t max_bytes) noexcept nogil:
    """Copy a reply but for its id; NULL without memory, and for one larger than `max_bytes`."""
    cdef size_t before, behind, size
    cdef cached_reply* made
    if find_id(reply, &before, &behind) != 0:
        return NULL
    size = reply.size - (behind - before)
    if <int64_t> (size + sizeof(cached_reply)) > max_bytes:
        return NULL
    made = <cached_reply*> malloc(sizeof(cached_reply) + size)
    if made == NULL:
        return NULL
    memset(made, 0, sizeof(cached_reply))
    memcpy(made.key, key, CACHE_KEY_BYTES)
    made.serial = serial
    made.before_id = before
    made.size = size
    made.content = <uint8_t*> made + sizeof(cached_reply)
    memcpy(made.content, reply.data, before)
    memcpy(made.content + before, reply.data + behind, reply.size - behind)
    return made


cdef int find_id(bytes_view reply, size_t* before, size_t* behind) noexcept nogil:
    """Find where a reply's id stands, or would: fields are in the order of their numbers. 0, or -1 for no reply."""
    cdef cursor place = open_cursor(reply)
    cdef const uint8_t* start
    cdef bytes_view content
    cdef unsigned int tag = 0
    before[0] = behind[0] = reply.size
    while place.at != place.end:
        start = place.at
        if read_tag(&place, &tag) != 0 or tag & 7 != DELIMITED:
            return -1
        if tag >> 3 > ID_FIELD:
            before[0] = behind[0] = start - reply.data
            return 0
        if read_span(&place, &content) != 0:
            return -1
        if tag >> 3 == ID_FIELD:
            before[0] = start - reply.data
            behind[0] = place.at - reply.data
            return 0
    return 0


# ---- the table and the order of use; all under the lock


cdef inline int64_t charge(const cached_reply* entry) noexcept nogil:
    return <int64_t> (entry.size + sizeof(cached_reply))


cdef void link_entry(response_cache* cache, cached_reply* made) noexcept nogil:
    cdef cached_reply** bucket = find_bucket(cache, made.key)
    made.chained = bucket[0]
    bucket[0] = made
    link_newest(cache, made)
    cache.bytes += charge(made)
    cache.entries += 1


cdef void link_newest(response_cache* cache, cached_reply* used) noexcept nogil:
    used.newer = NULL
    used.older = cache.newest
    if cache.newest == NULL:
        cache.oldest = used
    else:
        cache.newest.newer = used
    cache.newest = used


cdef void unlink_use(response_cache* cache, cached_reply* used) noexcept nogil:
    if used.newer == NULL:
        cache.newest = used.older
    else:
        used.newer.older = used.older
    if used.older == NULL:
        cache.oldest = used.newer
    else:
        used.older.newer = used.newer


cdef void remove_entry(response_cache* cache, cached_reply* removed) noexcept nogil:
    """Take an entry out, and free it unless somebody copies it now."""
    cdef cached_reply** link = find_bucket(cache, removed.key)
    while link[0] != removed:
        link = &link[0].chained
    link[0] = removed.chained
    unlink_use(cache, removed)
    cache.bytes -= charge(removed)
    cache.entries -= 1
    removed.is_out = True
    if removed.readers == 0:
        free(removed)


cdef void forget_version(response_cache* cache, int64_t serial) noexcept nogil:
    """Take out what a version that is retired has answered: nobody will ask for it again."""
    cdef cached_reply* entry
    cdef cached_reply* newer
    if cache.max_bytes == 0:
        return
    pthread_mutex_lock(&cache.lock)
    entry = cache.oldest
    while entry != NULL:
        newer = entry.newer
        if entry.serial == serial:
            remove_entry(cache, entry)
        entry = newer
    pthread_mutex_unlock(&cache.lock)


cdef void read_usage(response_cache* cache, cache_usage* usage) noexcept nogil:
    """How much the cache holds at this moment; zeros where there is none."""
    memset(usage, 0, sizeof(cache_usage))
    if cache.max_bytes == 0:
        return
    pthread_mutex_lock(&cache.lock)
    usage.max_bytes = cache.max_bytes
    usage.bytes = cache.bytes
    usage.entries = cache.entries
    usage.evictions = cache.evictions
    pthread_mutex_unlock(&cache.lock)
