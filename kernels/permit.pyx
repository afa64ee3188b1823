"""Permits and the admissions of calls: made under the GIL, read without it, freed by whoever drops the last reference."""

from cython cimport final
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from kernels.sync cimport int_add

ACTIONS = {"infer": MAY_INFER, "pin": MAY_PIN, "shared_memory": MAY_SHARE_MEMORY}


@final
cdef class Permit:
    """What a caller may ask the engine for.

    Parameters
    ----------
    rules : iterable of (str, int)
        Pattern and MAY_… bits; what any rule allows is allowed. A pattern is a model's name or, ending in a star, the
        beginning of names.
    refusal : str
        Why this caller may do nothing; for one whose identity cannot be read.
    """

    def __cinit__(self, rules=(), *, str refusal=None):
        cdef size_t place
        rules = tuple(rules)
        self.core = <permit*> calloc(1, sizeof(permit))
        if self.core == NULL:
            raise MemoryError
        self.core.references = 1
        if refusal is not None:
            self.core.refusal = copy_text(refusal.encode("utf-8", "replace"))
        self.core.rules = <permit_rule*> calloc(max(len(rules), 1), sizeof(permit_rule))
        if self.core.rules == NULL:
            raise MemoryError
        for place, (pattern, actions) in enumerate(rules):
            fill_rule(&self.core.rules[place], pattern, actions)
            self.core.n_rules = place + 1

    def __dealloc__(self):
        if self.core != NULL:
            drop_permit(self.core)

    def actions(self, str model not None):
        """Return the MAY_… bits for a model."""
        cdef bytes encoded = model.encode("utf-8", "surrogatepass")
        return find_actions(self.core, bytes_view(<const unsigned char*> <const char*> encoded, len(encoded)))


@final
cdef class Admission:
    """A call's permit, for transports whose calls are Python objects.

    Parameters
    ----------
    streams : bool
        Whether the call may have more than one request.
    """

    def __cinit__(self, *, bint streams=False):
        self.core.keeps_model = streams

    def __dealloc__(self):
        end_admission(&self.core)

    def decide(self, Permit permit not None, bint is_forwarded):
        """Have this permit hold for what is submitted from now on; on the thread that submits."""
        admit(&self.core, permit.core, 0, is_forwarded)


cdef int fill_rule(permit_rule* filled, str pattern, int actions) except -1:
    cdef bytes name = pattern.removesuffix("*").encode()
    filled.name = copy_text(name)
    filled.size = len(name)
    filled.is_beginning = pattern.endswith("*")
    filled.actions = actions
    return 0


cdef char* copy_text(bytes text) except NULL:
    cdef char* copied = <char*> malloc(len(text) + 1)
    if copied == NULL:
        raise MemoryError
    memcpy(copied, <const char*> text, len(text) + 1)
    return copied


cdef int find_actions(const permit* allowed, bytes_view model) noexcept nogil:
    """Return the MAY_… bits that some rule has for a model's name."""
    cdef const permit_rule* rule
    cdef size_t place
    cdef int actions = 0
    if allowed.refusal != NULL:
        return 0
    for place in range(allowed.n_rules):
        rule = &allowed.rules[place]
        if rule.size > model.size or (rule.size < model.size and not rule.is_beginning):
            continue
        if rule.size == 0 or memcmp(rule.name, model.data, rule.size) == 0:
            actions |= rule.actions
    return actions


cdef permit* hold_permit(permit* held) noexcept nogil:
    """Return the permit with one more reference."""
    int_add(&held.references, 1)
    return held


cdef void drop_permit(permit* held) noexcept nogil:
    """Give a reference back; the last one frees the permit. NULL is none."""
    cdef size_t place
    if held == NULL or int_add(&held.references, -1) > 0:
        return
    if held.rules != NULL:
        for place in range(held.n_rules):
            free(held.rules[place].name)
    free(held.rules)
    free(held.refusal)
    free(held)


cdef void admit(admission* admitted, permit* allowed, int age, bint is_forwarded) noexcept nogil:
    """Put a permit, of which a reference is taken, into the place of an earlier one."""
    cdef permit* before = admitted.allowed
    admitted.allowed = hold_permit(allowed)
    admitted.age = age
    admitted.is_forwarded = is_forwarded
    drop_permit(before)


cdef int keep_model(admission* admitted, bytes_view model) noexcept nogil:
    """Note the model of a stream's first message. 0; 1 when it is another one than the first; -1 without memory."""
    cdef unsigned char* copied
    if admitted.model.size > 0:
        return not (admitted.model.size == model.size and memcmp(admitted.model.data, model.data, model.size) == 0)
    if model.size == 0:
        return 0
    copied = <unsigned char*> malloc(model.size)
    if copied == NULL:
        return -1
    memcpy(copied, model.data, model.size)
    admitted.model = bytes_view(copied, model.size)
    return 0


cdef void end_admission(admission* used) noexcept nogil:
    """Give back what an admission holds."""
    drop_permit(used.allowed)
    free(<void*> used.model.data)
    used.allowed = NULL
    used.model = bytes_view(NULL, 0)
