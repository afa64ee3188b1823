"""A hash table of one thread, of bounded size: whoever was not asked for longest makes room for who is new."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from kernels.permit cimport drop_permit, hold_permit, permit

cdef enum:
    PLACES = 4096              # a power of two
    MAX_CALLERS = 4096
    MAX_BYTES = 4 * 1024 * 1024


cdef permit* find_caller(caller_table* table, int age, const uint8_t* key, size_t size) noexcept nogil:
    """Return what was decided of a caller, or NULL; the table keeps its reference. Decisions of another age are none."""
    cdef uint64_t hash
    cdef known_caller* found
    if table.age != age or table.places == NULL:
        return NULL
    hash = hash_bytes(table.seed, key, size)
    found = table.places[hash & (PLACES - 1)]
    while found != NULL:
        if found.hash == hash and found.size == size and (size == 0 or memcmp(key_of(found), key, size) == 0):
            if found != table.newest:
                unlink_age(table, found)
                link_newest(table, found)
            return found.allowed
        found = found.following
    return NULL


cdef void remember_caller(caller_table* table, int age, const uint8_t* key, size_t size, permit* allowed) noexcept nogil:
    """Note a decision; without memory it will be asked for again. What is of another age is forgotten first."""
    cdef known_caller* made
    if table.age != age:
        forget_callers(table)
        table.age = age
    if find_caller(table, age, key, size) != NULL:
        return
    if table.places == NULL:
        table.places = <known_caller**> calloc(PLACES, sizeof(void*))
    made = <known_caller*> malloc(sizeof(known_caller) + size)
    if table.places == NULL or made == NULL:
        free(made)
        return
    made.hash = hash_bytes(table.seed, key, size)
    made.size = size
    made.allowed = hold_permit(allowed)
    if size > 0:
        memcpy(<void*> key_of(made), key, size)
    made.following = table.places[made.hash & (PLACES - 1)]
    table.places[made.hash & (PLACES - 1)] = made
    link_newest(table, made)
    table.count += 1
    table.bytes += sizeof(known_caller) + size
    while table.count > MAX_CALLERS or table.bytes > MAX_BYTES:
        forget_caller(table, table.oldest)


cdef void forget_callers(caller_table* table) noexcept nogil:
    """Empty the table."""
    while table.oldest != NULL:
        forget_caller(table, table.oldest)


cdef void free_callers(caller_table* table) noexcept nogil:
    """Free the table's memory; it is then empty."""
    forget_callers(table)
    free(table.places)
    table.places = NULL


cdef void forget_caller(caller_table* table, known_caller* used) noexcept nogil:
    cdef known_caller** link = &table.places[used.hash & (PLACES - 1)]
    while link[0] != used:
        link = &link[0].following
    link[0] = used.following
    unlink_age(table, used)
    table.count -= 1
    table.bytes -= sizeof(known_caller) + used.size
    drop_permit(used.allowed)
    free(used)


cdef const uint8_t* key_of(const known_caller* member) noexcept nogil:
    return <const uint8_t*> (member + 1)


cdef void link_newest(caller_table* table, known_caller* added) noexcept nogil:
    added.newer = NULL
    added.older = table.newest
    if table.newest != NULL:
        table.newest.newer = added
    else:
        table.oldest = added
    table.newest = added


cdef void unlink_age(caller_table* table, known_caller* member) noexcept nogil:
    if member.newer != NULL:
        member.newer.older = member.older
    else:
        table.newest = member.older
    if member.older != NULL:
        member.older.newer = member.newer
    else:
        table.oldest = member.newer


cdef uint64_t hash_bytes(uint64_t seed, const uint8_t* data, size_t size) noexcept nogil:
    """Eight bytes at a time: a token has hundreds."""
    cdef uint64_t value = seed ^ <uint64_t> size, word
    while size >= sizeof(word):
        memcpy(&word, data, sizeof(word))
        value = mix(value ^ word)
        data += sizeof(word)
        size -= sizeof(word)
    word = 0
    if size > 0:
        memcpy(&word, data, size)
    return mix(value ^ word)


cdef uint64_t mix(uint64_t value) noexcept nogil:
    value *= 0x9E3779B97F4A7C15ULL
    return value ^ (value >> 32)
