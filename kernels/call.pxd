"""A call's memory: its life, its headers, its message as it arrives."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from kernels.transport_state cimport byte_buffer, call, io_thread

cdef enum receive_outcome:
    RECEIVED = 0
    RECEIVE_TOO_LARGE = 1
    RECEIVE_MALFORMED = 2
    RECEIVE_NO_MEMORY = 3
    RECEIVE_TOO_MANY = 4           # a second message before the first was taken
    RECEIVE_FULL = 5               # over the limit of buffered bytes


cdef call* take_call(io_thread* thread) noexcept nogil
cdef void drop_call(call* used) noexcept nogil
cdef void drop_call_elsewhere(call* used) noexcept nogil
cdef void free_spare_calls(io_thread* thread) noexcept nogil
cdef int append_bytes(byte_buffer* target, const void* data, size_t size) noexcept nogil
cdef int append_field(byte_buffer* target, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size) noexcept nogil
cdef void free_buffer(byte_buffer* used) noexcept nogil
cdef int receive_bytes(call* receiver, const uint8_t* data, size_t size, size_t* taken) noexcept nogil
cdef int grant_message(call* receiver, size_t* consumed) noexcept nogil
cdef uint8_t* take_message(call* receiver, size_t* size, size_t* capacity) noexcept nogil
cdef void release_message(call* receiver, uint8_t* message, size_t capacity) noexcept nogil
cdef void discard_message(call* receiver) noexcept nogil
cdef bint is_over_limit(const call* payer, size_t more) noexcept nogil
cdef void charge(call* payer, int64_t size) noexcept nogil
