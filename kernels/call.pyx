"""A call's memory, and gRPC's framing of its messages over whatever pieces the network makes of them.

Calls come from their I/O thread's pool. A message is received into one buffer; a small one lies in the call itself.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset

from kernels.alignment cimport WORD_BYTES, shift_for
from kernels.compression cimport INFLATE_LIMIT, INFLATE_NO_MEMORY, INFLATE_OK, inflate_message
from kernels.permit cimport end_admission
from kernels.sync cimport counter_add, counter_load, int_add
from kernels.tls_peer cimport release_peer
from kernels.transport_state cimport (
    FRAME_PREFIX_BYTES, GZIP, INLINE_MESSAGE_BYTES, byte_buffer, call, io_thread, server_core,
)

cdef enum:
    SPARE_CALLS = 4096                 # that a thread keeps
    KEPT_BYTES = 4096                  # a larger buffer of a spare call is freed
    FIRST_BYTES = 64 * 1024            # allocated for a larger message when it is announced
    TRUSTED_BYTES = 8 * 1024           # when so many have come
    SECOND_BYTES = 1024 * 1024         # so much is allocated
    CHARGED_BYTES = 4096               # a step in which they are counted


# ---- life


cdef call* take_call(io_thread* thread) noexcept nogil:
    """Return a fresh call with one reference, the stream's; NULL without memory."""
    cdef call* taken = thread.spare_calls
    if taken != NULL:
        thread.spare_calls = taken.next
        thread.n_spare_calls -= 1
        taken.next = NULL
    else:
        taken = <call*> calloc(1, sizeof(call))
        if taken == NULL:
            return NULL
    taken.thread = thread
    taken.references = 1
    return taken


cdef void drop_call(call* used) noexcept nogil:
    """Give a reference back, on the call's I/O thread: the last one returns the call to the thread's pool."""
    cdef io_thread* thread = used.thread
    cdef byte_buffer metadata, key, status_text, trailing
    if int_add(&used.references, -1) > 0:
        return
    clear_call(used)
    if thread.n_spare_calls >= SPARE_CALLS:
        free_call(used)
        return
    metadata = keep_buffer(&used.metadata)
    key = keep_buffer(&used.key)
    status_text = keep_buffer(&used.status_text)
    trailing = keep_buffer(&used.trailing)
    # The inline message behind it needs no clearing.
    memset(used, 0, <size_t> (<char*> used.inline_message - <char*> used))
    used.metadata = metadata
    used.key = key
    used.status_text = status_text
    used.trailing = trailing
    used.next = thread.spare_calls
    thread.spare_calls = used
    thread.n_spare_calls += 1


cdef void clear_call(call* used) noexcept nogil:
    discard_message(used)
    release_peer(used.identity)
    used.identity = NULL
    if used.admitted.allowed != NULL:
        end_admission(&used.admitted)


cdef void free_call(call* used) noexcept nogil:
    free_buffer(&used.metadata)
    free_buffer(&used.key)
    free_buffer(&used.status_text)
    free_buffer(&used.trailing)
    free(used)


cdef void free_spare_calls(io_thread* thread) noexcept nogil:
    """Free a thread's pool."""
    cdef call* following
    while thread.spare_calls != NULL:
        following = thread.spare_calls.next
        free_call(thread.spare_calls)
        thread.spare_calls = following
    thread.n_spare_calls = 0


cdef void drop_call_elsewhere(call* used) noexcept nogil:
    """Give a reference back from another thread, whose pool the call is not for."""
    if int_add(&used.references, -1) == 0:
        clear_call(used)
        free_call(used)


# ---- buffers


cdef byte_buffer keep_buffer(byte_buffer* used) noexcept nogil:
    """Return the buffer empty, with its memory when that is small."""
    if used.capacity > KEPT_BYTES:
        free_buffer(used)
    used.size = 0
    return used[0]


cdef void free_buffer(byte_buffer* used) noexcept nogil:
    """Free what a buffer holds; it is then empty."""
    free(used.data)
    used.data = NULL
    used.size = used.capacity = 0


cdef int append_bytes(byte_buffer* target, const void* data, size_t size) noexcept nogil:
    """Copy bytes to the end. 0, or -1 without memory, and then the buffer is as it was."""
    cdef size_t capacity
    cdef uint8_t* larger
    if size > target.capacity - target.size:
        capacity = max(2 * target.capacity, target.size + size)
        larger = <uint8_t*> realloc(target.data, capacity)
        if larger == NULL:
            return -1
        target.data = larger
        target.capacity = capacity
    if size > 0:
        memcpy(target.data + target.size, data, size)
    target.size += size
    return 0


cdef int append_field(byte_buffer* target, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size) noexcept nogil:
    """Add a metadata field: two sizes of four bytes, then name and value. 0, or -1 without memory."""
    cdef uint32_t[2] sizes
    sizes[0] = <uint32_t> name_size
    sizes[1] = <uint32_t> value_size
    if (append_bytes(target, sizes, sizeof(sizes)) != 0 or append_bytes(target, name, name_size) != 0
            or append_bytes(target, value, value_size) != 0):
        return -1
    return 0


cdef void charge(call* payer, int64_t size) noexcept nogil:
    """Count bytes of messages for a call's connection and for the server; negative gives back. On the I/O thread."""
    counter_add(&payer.thread.server.buffered, size)
    if payer.home != NULL:
        payer.home.buffered += size
        payer.charged += size


cdef int64_t room_left(const call* payer) noexcept nogil:
    """How many bytes more may be held for a call's connection."""
    cdef server_core* server = payer.thread.server
    cdef int64_t left = server.limits.max_buffered_bytes - counter_load(&server.buffered)
    if payer.home != NULL:
        left = min(left, server.limits.max_connection_bytes - payer.home.buffered)
    return left


cdef bint is_over_limit(const call* payer, size_t more) noexcept nogil:
    """Whether so many bytes more are too many. A few bytes never are: others' small calls go on beside large ones."""
    return more > INLINE_MESSAGE_BYTES and <int64_t> more > room_left(payer)


# ---- the message that arrives


cdef int receive_bytes(call* receiver, const uint8_t* data, size_t size, size_t* taken) noexcept nogil:
    """Take bytes of the call's messages, and give each whole one to the method. A RECEIVE_… code.

    `taken` is how many; those behind a message that is not granted are put aside.
    """
    cdef int outcome = read_messages(receiver, data, size, taken)
    if outcome != RECEIVED or taken[0] == size:
        return outcome
    return keep_backlog(receiver, data + taken[0], size - taken[0])


cdef int read_messages(call* receiver, const uint8_t* data, size_t size, size_t* taken) noexcept nogil:
    cdef size_t part
    cdef int outcome
    taken[0] = 0
    while taken[0] < size:
        if receiver.has_message:
            return RECEIVED if receiver.is_counting else RECEIVE_TOO_MANY
        if receiver.prefix_size < FRAME_PREFIX_BYTES:
            part = min(size - taken[0], <size_t> (FRAME_PREFIX_BYTES - receiver.prefix_size))
            memcpy(receiver.prefix + receiver.prefix_size, data + taken[0], part)
            receiver.prefix_size += <int> part
            taken[0] += part
            if receiver.prefix_size < FRAME_PREFIX_BYTES:
                return RECEIVED
            outcome = begin_message(receiver)
            if outcome != RECEIVED:
                return outcome
        part = min(size - taken[0], receiver.message_size - receiver.received)
        if part == 0 and receiver.message_size > 0:
            return RECEIVED
        outcome = make_room(receiver, receiver.received + part)
        if outcome != RECEIVED:
            return outcome
        memcpy(receiver.message + receiver.received, data + taken[0], part)
        receiver.received += part
        taken[0] += part
        if receiver.received == receiver.message_size:
            outcome = finish_message(receiver)
            if outcome != RECEIVED:
                return outcome
    return RECEIVED


cdef int begin_message(call* receiver) noexcept nogil:
    """Read a message's prefix."""
    cdef size_t size = (<size_t> receiver.prefix[1] << 24 | <size_t> receiver.prefix[2] << 16
                        | <size_t> receiver.prefix[3] << 8 | receiver.prefix[4])
    if receiver.prefix[0] > 1:
        return RECEIVE_MALFORMED
    if receiver.prefix[0] == 1 and receiver.encoding not in (1, 2):
        return RECEIVE_MALFORMED
    receiver.message_size = size
    receiver.received = 0
    if size > receiver.thread.server.limits.max_message_bytes:
        return RECEIVE_TOO_LARGE
    if size <= INLINE_MESSAGE_BYTES:
        receiver.message = receiver.inline_message
    return RECEIVED


cdef int make_room(call* receiver, size_t needed) noexcept nogil:
    """Have room for `needed` bytes of the message, which are counted: what is only announced takes nothing from others."""
    cdef size_t charged
    if receiver.message_size <= INLINE_MESSAGE_BYTES:
        return RECEIVED
    if needed > receiver.message_charged:
        charged = min((needed + CHARGED_BYTES - 1) // CHARGED_BYTES * CHARGED_BYTES, receiver.message_size)
        if is_over_limit(receiver, charged - receiver.message_charged):
            return RECEIVE_FULL
        charge(receiver, <int64_t> (charged - receiver.message_charged))
        receiver.message_charged = charged
    return RECEIVED if needed <= receiver.message_capacity else grow_message(receiver, needed)


cdef int grow_message(call* receiver, size_t needed) noexcept nogil:
    """Allocate a large message's memory as its bytes arrive: a little, more, then doubling.

    The message ends where a word does. Its last field is a tensor as a rule, whose elements are then aligned, so that
    a batch of one runs on the tensor where it lies.
    """
    cdef size_t shift = shift_for(receiver.message_size)
    cdef size_t least = SECOND_BYTES if needed >= TRUSTED_BYTES else FIRST_BYTES
    cdef size_t capacity = min(max(2 * receiver.message_capacity, max(needed, least)), receiver.message_size)
    cdef uint8_t* larger = <uint8_t*> realloc(find_block(receiver.message), capacity + shift)
    if larger == NULL:
        return RECEIVE_NO_MEMORY
    receiver.message = larger + shift
    receiver.message_capacity = capacity
    return RECEIVED


cdef uint8_t* find_block(uint8_t* message) noexcept nogil:
    """The memory of a message outside its call, which begins less than a word before it; NULL of NULL."""
    return message - <size_t> message % WORD_BYTES


cdef int finish_message(call* receiver) noexcept nogil:
    """Inflate a message that needs it, and give it to the method."""
    cdef int outcome
    receiver.prefix_size = 0
    if receiver.prefix[0] == 1:
        outcome = inflate_received(receiver)
        if outcome != RECEIVED:
            return outcome
    receiver.has_message = True
    if not receiver.is_counting:
        receiver.target.take_message(receiver)
    elif receiver.granted > 0:
        receiver.granted -= 1
        receiver.target.take_message(receiver)
    return RECEIVED


cdef int keep_backlog(call* receiver, const uint8_t* data, size_t size) noexcept nogil:
    """Put bytes behind a message aside until that one is granted; the stream's window bounds them."""
    cdef byte_buffer* backlog = &receiver.backlog
    if <int64_t> size > room_left(receiver):
        return RECEIVE_FULL
    if receiver.backlog_taken > backlog.size // 2:
        # Fewer bytes are moved than were taken since the last time.
        backlog.size -= receiver.backlog_taken
        memmove(backlog.data, backlog.data + receiver.backlog_taken, backlog.size)
        receiver.backlog_taken = 0
    if append_bytes(backlog, data, size) != 0:
        return RECEIVE_NO_MEMORY
    charge(receiver, <int64_t> size)
    return RECEIVED


cdef int grant_message(call* receiver, size_t* consumed) noexcept nogil:
    """Let the method have one more message: the one that waits, if one does, and then what came behind it.

    `consumed` is what the stream's window gets back. A RECEIVE_… code.
    """
    cdef byte_buffer* backlog = &receiver.backlog
    cdef int outcome
    consumed[0] = 0
    receiver.granted += 1
    if not receiver.has_message:
        return RECEIVED
    receiver.granted -= 1
    receiver.target.take_message(receiver)
    if backlog.size == 0:
        return RECEIVED
    outcome = read_messages(receiver, backlog.data + receiver.backlog_taken, backlog.size - receiver.backlog_taken,
                            consumed)
    receiver.backlog_taken += consumed[0]
    charge(receiver, -<int64_t> consumed[0])
    if receiver.backlog_taken == backlog.size:
        discard_backlog(receiver)
    return outcome


cdef void discard_backlog(call* receiver) noexcept nogil:
    charge(receiver, -<int64_t> (receiver.backlog.size - receiver.backlog_taken))
    free_buffer(&receiver.backlog)
    receiver.backlog_taken = 0


cdef int inflate_received(call* receiver) noexcept nogil:
    """Put a message's plain bytes in its place, as many as a message may have and as there is room for."""
    cdef size_t limit = receiver.thread.server.limits.max_message_bytes
    cdef size_t room = <size_t> max(room_left(receiver), <int64_t> INLINE_MESSAGE_BYTES)
    cdef uint8_t* plain
    cdef size_t size
    cdef int outcome = inflate_message(receiver.message, receiver.message_size, receiver.encoding == GZIP,
                                       min(limit, room), &plain, &size)
    if outcome == INFLATE_NO_MEMORY:
        return RECEIVE_NO_MEMORY
    if outcome == INFLATE_LIMIT:
        return RECEIVE_TOO_LARGE if limit <= room else RECEIVE_FULL
    if outcome != INFLATE_OK:
        return RECEIVE_MALFORMED
    forget_message(receiver)
    receiver.message = plain
    receiver.message_size = size
    receiver.message_capacity = receiver.message_charged = max(size, <size_t> 1)
    charge(receiver, <int64_t> receiver.message_charged)
    return RECEIVED


cdef uint8_t* take_message(call* receiver, size_t* size, size_t* capacity) noexcept nogil:
    """Hand the whole message over. With a capacity of 0 it lies in the call; else release_message frees it."""
    cdef uint8_t* message = receiver.message
    size[0] = receiver.message_size
    capacity[0] = receiver.message_capacity
    receiver.message = NULL
    receiver.message_capacity = receiver.message_charged = 0
    receiver.has_message = False
    return message


cdef void release_message(call* receiver, uint8_t* message, size_t capacity) noexcept nogil:
    """Free a message that was taken over."""
    if capacity > 0:
        free(find_block(message))
        charge(receiver, -<int64_t> capacity)


cdef void forget_message(call* receiver) noexcept nogil:
    if receiver.message_capacity > 0:
        free(find_block(receiver.message))
    charge(receiver, -<int64_t> receiver.message_charged)
    receiver.message = NULL
    receiver.message_capacity = receiver.message_charged = 0


cdef void discard_message(call* receiver) noexcept nogil:
    """Forget what has arrived of a message, and behind it."""
    forget_message(receiver)
    receiver.has_message = False
    receiver.prefix_size = 0
    discard_backlog(receiver)
