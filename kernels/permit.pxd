"""What a caller may ask the engine for: by patterns of models' names, decided once and shared by all of its calls."""

from kernels.wire cimport bytes_view

cpdef enum:                    # bits of permit_rule.actions
    MAY_INFER = 1
    MAY_PIN = 2                # name the version itself
    MAY_SHARE_MEMORY = 4       # name regions of shared memory


cdef struct permit_rule:
    char* name                 # owned
    size_t size
    bint is_beginning          # of the names that are meant, else the only one
    int actions


cdef struct permit:            # immutable, but for the count
    int references             # changed atomically
    char* refusal              # owned; why the caller may do nothing whatever the rules say, NULL where they hold
    size_t n_rules
    permit_rule* rules


cdef struct admission:         # of one call; touched by the thread that submits its requests, and no other
    permit* allowed            # a reference; NULL before anybody has decided
    int age                    # of the decisions among which that one was
    bint is_forwarded          # the caller stands behind a gateway, which alone chooses versions by header
    bint keeps_model           # a stream of which the gateway has seen the first message: its model holds for all
    bytes_view model           # that one, owned; empty before the first message


cdef class Permit:
    cdef permit* core


cdef class Admission:
    cdef admission core


cdef int find_actions(const permit* allowed, bytes_view model) noexcept nogil
cdef int keep_model(admission* admitted, bytes_view model) noexcept nogil
cdef permit* hold_permit(permit* held) noexcept nogil
cdef void drop_permit(permit* held) noexcept nogil
cdef void admit(admission* admitted, permit* allowed, int age, bint is_forwarded) noexcept nogil
cdef void end_admission(admission* used) noexcept nogil
