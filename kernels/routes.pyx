"""A small hash table with open addressing: built whole, published, read by any thread, freed when nobody reads it."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen


cdef route_table* create_routes(size_t count) noexcept nogil:
    """Make a table with room for `count` routes, or return NULL without memory."""
    cdef size_t places = 4
    cdef route_table* table = <route_table*> malloc(sizeof(route_table))
    if table == NULL:
        return NULL
    while places < 2 * count:
        places *= 2
    table.mask = places - 1
    table.places = <route*> calloc(places, sizeof(route))
    if table.places == NULL:
        free(table)
        return NULL
    return table


cdef void free_routes(route_table* table) noexcept nogil:
    """Free a table that nobody reads any more; the batchers are not its own."""
    cdef size_t place
    if table == NULL:
        return
    for place in range(table.mask + 1):
        free(table.places[place].name)
        free(table.places[place].reason)
    free(table.places)
    free(table)


cdef int add_route(route_table* table, const char* name, size_t name_size, int64_t version, batcher* target,
                   const char* reason) noexcept nogil:
    """Add a route that is not in the table yet; name and reason are copied. 0, or -1 without memory."""
    cdef size_t place = hash_route(name, name_size, version) & table.mask
    cdef route* added
    while table.places[place].name != NULL:
        place = (place + 1) & table.mask
    added = &table.places[place]
    if reason != NULL:
        added.reason = copy_text(reason, strlen(reason))
        if added.reason == NULL:
            return -1
    added.name = copy_text(name, name_size)
    added.name_size = name_size
    added.version = version
    added.target = target
    return 0 if added.name != NULL else -1


cdef const route* find_route(const route_table* table, const char* name, size_t name_size,
                             int64_t version) noexcept nogil:
    """Return the route, or NULL."""
    cdef size_t place = hash_route(name, name_size, version) & table.mask
    cdef const route* found
    while table.places[place].name != NULL:
        found = &table.places[place]
        if found.version == version and found.name_size == name_size and memcmp(found.name, name, name_size) == 0:
            return found
        place = (place + 1) & table.mask
    return NULL


cdef char* copy_text(const char* text, size_t size) noexcept nogil:
    cdef char* copied = <char*> malloc(size + 1)
    if copied != NULL:
        memcpy(copied, text, size)
        copied[size] = 0
    return copied


cdef uint64_t hash_route(const char* name, size_t size, int64_t version) noexcept nogil:
    """FNV-1a over the name and the version; names come from the repository, so nobody can choose collisions."""
    cdef uint64_t value = 14695981039346656037ULL
    cdef size_t position
    for position in range(size):
        value = (value ^ <unsigned char> name[position]) * 1099511628211ULL
    value = (value ^ <uint64_t> version) * 1099511628211ULL
    return value ^ (value >> 29)
