"""The callers that an I/O thread knows, by the bytes in which the gateway asserts them."""

from libc.stdint cimport uint8_t, uint64_t

from kernels.permit cimport permit


cdef struct known_caller:
    known_caller* following    # of the same place
    known_caller* newer        # by when they were asked for
    known_caller* older
    uint64_t hash
    permit* allowed            # a reference
    size_t size                # of the key, which lies behind


cdef struct caller_table:      # belongs to one thread
    known_caller** places      # NULL until somebody is known
    known_caller* newest
    known_caller* oldest
    size_t count
    size_t bytes               # of keys and what is kept with them
    int age                    # of the decisions in it
    uint64_t seed              # nobody outside can choose keys that share a place


cdef permit* find_caller(caller_table* table, int age, const uint8_t* key, size_t size) noexcept nogil
cdef void remember_caller(caller_table* table, int age, const uint8_t* key, size_t size, permit* allowed) noexcept nogil
cdef void forget_callers(caller_table* table) noexcept nogil
cdef void free_callers(caller_table* table) noexcept nogil
