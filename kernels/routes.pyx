"""A small hash table with open addressing: built whole, published, read by any thread, freed when nobody reads it."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen

from kernels.ensemble_plan cimport drop_plan, ensemble_plan, hold_plan


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
    """Free a table that nobody reads any more; the batchers and dormant models are not its own."""
    cdef size_t place
    if table == NULL:
        return
    for place in range(table.mask + 1):
        free(<void*> table.places[place].key.name)
        free(<void*> table.places[place].key.label)
        free(table.places[place].reason)
        if table.places[place].plan != NULL:
            drop_plan(table.places[place].plan)
    free(table.places)
    free(table)


cdef int add_route(route_table* table, const route_key* key, batcher* target, ensemble_plan* plan, dormant* sleeper,
                   const char* reason) noexcept nogil:
    """Add a route that is not in the table yet; its texts are copied. 0, or -1 without memory."""
    cdef size_t place = hash_key(key) & table.mask
    cdef route* added
    while table.places[place].key.name != NULL:
        place = (place + 1) & table.mask
    added = &table.places[place]
    if reason != NULL:
        added.reason = copy_text(reason, strlen(reason))
        if added.reason == NULL:
            return -1
    if key.label_size > 0:
        added.key.label = copy_text(key.label, key.label_size)
        if added.key.label == NULL:
            return -1
    added.key.name = copy_text(key.name, key.name_size)
    added.key.name_size = key.name_size
    added.key.label_size = key.label_size
    added.key.version = key.version
    added.target = target
    added.sleeper = sleeper
    if plan != NULL:
        hold_plan(plan)
        added.plan = plan
    return 0 if added.key.name != NULL else -1


cdef const route* find_route(const route_table* table, const route_key* key) noexcept nogil:
    """Return the route, or NULL."""
    cdef size_t place = hash_key(key) & table.mask
    while table.places[place].key.name != NULL:
        if is_same(&table.places[place].key, key):
            return &table.places[place]
        place = (place + 1) & table.mask
    return NULL


cdef bint is_same(const route_key* one, const route_key* other) noexcept nogil:
    return (one.version == other.version and one.name_size == other.name_size and one.label_size == other.label_size
            and memcmp(one.name, other.name, one.name_size) == 0
            and (one.label_size == 0 or memcmp(one.label, other.label, one.label_size) == 0))


cdef char* copy_text(const char* text, size_t size) noexcept nogil:
    cdef char* copied = <char*> malloc(size + 1)
    if copied != NULL:
        memcpy(copied, text, size)
        copied[size] = 0
    return copied


cdef uint64_t hash_key(const route_key* key) noexcept nogil:
    """FNV-1a over name, label and version; they come from the repository, so nobody can choose collisions."""
    cdef uint64_t value = hash_text(14695981039346656037ULL, key.name, key.name_size)
    value = hash_text(value, key.label, key.label_size)
    value = (value ^ <uint64_t> key.version) * 1099511628211ULL
    return value ^ (value >> 29)


cdef uint64_t hash_text(uint64_t value, const char* text, size_t size) noexcept nogil:
    cdef size_t position
    for position in range(size):
        value = (value ^ <unsigned char> text[position]) * 1099511628211ULL
    return value
