"""Answers under the keys that callers gave their requests: each computed once, and given again for as long as it is kept.

A request with a key is run by the book and not by its caller, who waits for the run as everybody else does who sends the
same request under the same key meanwhile. So the run goes on when callers leave, and whoever comes back finds its answer.
"""

from libc.stdint cimport int64_t, uint8_t

from kernels.codec cimport bytes_view
from kernels.failure cimport failure
from kernels.openssl cimport EVP_MD
from kernels.request cimport request
from kernels.sync cimport pthread_mutex_t

cdef enum:
    DIGEST_BYTES = 32            # SHA-256


cdef enum join_outcome:
    JOIN_BEGINS = 0              # nobody has asked before: the caller waits for a run that is to be begun
    JOIN_WAITS = 1               # for a run that has begun
    JOIN_ANSWERED = 2            # the answer is there, and held
    JOIN_REFUSED = 3             # the caller's error says why


cdef struct keyed_answer:
    uint8_t[DIGEST_BYTES] key    # of the caller and its key
    uint8_t[DIGEST_BYTES] body   # of the message that was sent with it
    keyed_answer* chained        # the next one in its bucket
    keyed_answer* younger        # answered next
    int holders                  # the table, the run, and those that copy the reply: freed by the last
    bint is_answered
    request* first               # who waits for the run
    request* last
    uint8_t* block               # owned: the run's message and version, or the reply
    bytes_view message
    bytes_view version_hint
    bytes_view reply
    int64_t cost                 # of the book's bytes
    int64_t answered_ns


cdef struct answer_book:
    int64_t max_bytes            # 0 when no answers are kept; all else is zeros then
    int64_t life_ns              # how long one is
    int64_t max_waiting
    int64_t max_pending_bytes
    int64_t* pending_bytes       # the engine's count of message bytes that wait or run
    EVP_MD* digest
    pthread_mutex_t lock         # guards what follows, and every answer
    keyed_answer** buckets
    size_t mask
    keyed_answer* oldest         # of those that are answered
    keyed_answer* youngest
    int64_t bytes
    int64_t entries              # answers, and runs under way
    int64_t waiting              # callers
    int64_t runs                 # since the start, as are those that follow
    int64_t replays              # callers that got an answer that another one's request had been run for
    int64_t conflicts            # keys that came with another message
    int64_t evictions            # answers that went before their time, or were too large to be kept


cdef struct book_usage:
    int64_t max_bytes
    int64_t bytes
    int64_t entries
    int64_t waiting
    int64_t runs
    int64_t replays
    int64_t conflicts
    int64_t evictions


cdef int open_book(answer_book* made, int64_t max_bytes, int64_t life_ns) noexcept nogil
cdef void close_book(answer_book* used) noexcept nogil
cdef int digest_message(const answer_book* book, const uint8_t* data, size_t size, uint8_t* digest) noexcept nogil
cdef int join_answer(answer_book* book, const uint8_t* key, const uint8_t* body, request* caller,
                     keyed_answer** joined) noexcept nogil
cdef void hold_message(keyed_answer* begun, uint8_t* block, bytes_view message, bytes_view version_hint) noexcept nogil
cdef request* take_late(answer_book* book, keyed_answer* begun, int64_t deadline_ns, int64_t* latest_ns,
                        bint* has_left) noexcept nogil
cdef request* end_answer(answer_book* book, keyed_answer* ended, uint8_t* kept, size_t size, bint is_lost) noexcept nogil
cdef bint leave_answer(answer_book* book, request* caller) noexcept nogil
cdef void drop_answer(answer_book* book, keyed_answer* held) noexcept nogil
cdef void read_book(answer_book* book, book_usage* usage) noexcept nogil
