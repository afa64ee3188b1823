"""What leaves: each call's queue of messages, and the pieces of one connection's next write.

Small parts are copied into the thread's output; large ones are written from where they lie, so that a message whose end
has been added is released only once the pieces are written.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from kernels.call cimport charge
from kernels.sockets cimport iovec
from kernels.transport_state cimport OUTPUT_PIECES, call, io_thread, outgoing

cdef enum:
    DIRECT_BYTES = 4096                # a smaller part of a message is copied: a piece costs more


cdef void write_prefix(uint8_t* target, bint is_compressed, size_t size) noexcept nogil:
    """Write gRPC's five bytes before a message."""
    target[0] = is_compressed
    target[1] = <uint8_t> (size >> 24)
    target[2] = <uint8_t> (size >> 16)
    target[3] = <uint8_t> (size >> 8)
    target[4] = <uint8_t> size


cdef void queue_outgoing(call* sender, outgoing* made) noexcept nogil:
    """Append a message to what is to be sent."""
    made.next = NULL
    if sender.last == NULL:
        sender.first = made
        sender.offset = 0
        sender.last_sent_ns = sender.thread.now_ns
    else:
        sender.last.next = made
    sender.last = made
    sender.waiting += made.prefix_size + made.size
    charge(sender, <int64_t> made.size)


cdef void add_output(io_thread* thread, const void* data, size_t size) noexcept nogil:
    """Copy bytes to the thread's output, which has room for them, and make them its last piece or part of it."""
    cdef uint8_t* target = thread.output + thread.output_size
    memcpy(target, data, size)
    thread.output_size += size
    if thread.n_pieces > 0 and ends_at(&thread.pieces[thread.n_pieces - 1], target):
        thread.pieces[thread.n_pieces - 1].iov_len += size
        thread.pieces_size += size
    else:
        add_piece(thread, target, size)


cdef bint ends_at(const iovec* piece, const uint8_t* place) noexcept nogil:
    return <const uint8_t*> piece.iov_base + piece.iov_len == place


cdef void add_piece(io_thread* thread, const void* data, size_t size) noexcept nogil:
    thread.pieces[thread.n_pieces].iov_base = <void*> data
    thread.pieces[thread.n_pieces].iov_len = size
    thread.n_pieces += 1
    thread.pieces_size += size


cdef void add_outgoing(call* sender, size_t size, bint is_direct) noexcept nogil:
    """Add the next `size` bytes that wait, which are there, to the output; of large messages only where they lie."""
    cdef io_thread* thread = sender.thread
    cdef outgoing* front
    cdef size_t part, added = 0
    while added < size:
        front = sender.first
        if sender.offset < <size_t> front.prefix_size:
            part = min(size - added, front.prefix_size - sender.offset)
            add_output(thread, front.prefix + sender.offset, part)
        else:
            part = min(size - added, front.prefix_size + front.size - sender.offset)
            if is_direct and part >= DIRECT_BYTES and thread.n_pieces < OUTPUT_PIECES - 1:
                add_piece(thread, front.data + (sender.offset - front.prefix_size), part)
            else:
                add_output(thread, front.data + (sender.offset - front.prefix_size), part)
        added += part
        sender.offset += part
        if sender.offset == front.prefix_size + front.size:
            release_front(sender)
    sender.waiting -= size
    sender.last_sent_ns = thread.now_ns


cdef void finish_output(io_thread* thread) noexcept nogil:
    """Release the messages that were written, and begin anew."""
    cdef outgoing* released
    thread.output_size = thread.pieces_size = 0
    thread.n_pieces = 0
    while thread.sent != NULL:
        released = thread.sent
        thread.sent = released.next
        released.release(released)


cdef void release_front(call* sender) noexcept nogil:
    cdef outgoing* front = sender.first
    sender.first = front.next
    sender.offset = 0
    if sender.first == NULL:
        sender.last = NULL
    charge(sender, -<int64_t> front.size)
    if sender.thread.n_pieces > 0:
        # Its bytes may be among those that are about to be written.
        front.next = sender.thread.sent
        sender.thread.sent = front
    else:
        front.release(front)


cdef void drop_outgoing(call* sender) noexcept nogil:
    """Release everything that waits; the call must hold a reference of its own."""
    while sender.first != NULL:
        release_front(sender)
    sender.waiting = 0
