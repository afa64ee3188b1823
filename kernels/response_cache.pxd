"""Replies by what was asked, for models whose answers depend on nothing else: bounded bytes, least recently used out.

A key is the SHA-256 of the version's serial number (of an ensemble, of that and of all versions that its steps run on), the
inputs as the model gets them, and the outputs that were asked for: two requests that share one would be a collision of
SHA-256. Content lies apart from a reply's id, which is the caller's own.
"""

from libc.stdint cimport int64_t, uint8_t

from kernels.openssl cimport EVP_MD
from kernels.request cimport CACHE_KEY_BYTES, request
from kernels.signature cimport signature
from kernels.sync cimport pthread_mutex_t
from kernels.wire cimport bytes_view


cdef struct cached_reply:
    uint8_t[CACHE_KEY_BYTES] key
    int64_t serial               # of the version that gave it
    cached_reply* chained        # the next one in its bucket
    cached_reply* newer          # by use; those that are found only
    cached_reply* older
    int64_t readers              # that copy it now: freed by the last of them when it is out
    bint is_out
    size_t before_id             # bytes of the reply that come before its id
    size_t size
    uint8_t* content             # behind this struct, in its block


cdef struct response_cache:
    int64_t max_bytes            # 0 when there is no cache; all else is zeros then
    EVP_MD* digest
    pthread_mutex_t lock         # guards what follows
    cached_reply** buckets
    size_t mask
    cached_reply* newest
    cached_reply* oldest
    int64_t bytes
    int64_t entries
    int64_t evictions


cdef struct cache_usage:
    int64_t max_bytes
    int64_t bytes                # of the entries, with what keeping them takes
    int64_t entries
    int64_t evictions            # entries that made room for others


cdef int open_cache(response_cache* made, int64_t max_bytes) noexcept nogil
cdef void close_cache(response_cache* used) noexcept nogil
cdef bint can_be_cached(const request* asked) noexcept nogil
cdef int make_key(const response_cache* cache, int64_t serial, const signature* accepted, request* asked) noexcept nogil
cdef bint find_reply(response_cache* cache, const signature* accepted, request* asked) noexcept nogil
cdef void keep_reply(response_cache* cache, int64_t serial, const uint8_t* key, bytes_view reply) noexcept nogil
cdef void forget_version(response_cache* cache, int64_t serial) noexcept nogil
cdef void read_usage(response_cache* cache, cache_usage* usage) noexcept nogil
