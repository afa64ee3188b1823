"""Finds what a call's caller may do, without the GIL where that is known, and has Python asked where it is not.

Who calls directly is known by the connection, and who comes through a gateway by the headers in which that asserts
him. Which of the two a connection is, Python says with its first answer. A change of the policy makes all answers old at
once: what comes then, on open streams too, is asked for anew.
"""

from libc.stdlib cimport free
from libc.string cimport memcpy

from kernels.call cimport drop_call
from kernels.caller_table cimport find_caller, remember_caller
from kernels.headers cimport GRPC_RESOURCE_EXHAUSTED
from kernels.permit cimport admit, drop_permit, hold_permit, permit
from kernels.python_calls cimport push_event
from kernels.reply cimport fail_call
from kernels.sync cimport int_add, int_load
from kernels.tls_peer cimport share_peer
from kernels.transport_state cimport ADDRESS_BYTES, EVENT_ADMIT, call, command, connection, exchange, io_thread


cdef void line_up(exchange* made) noexcept nogil:
    """Have an exchange submitted at the end of the turn, or held until its call is admitted."""
    if made.home.thread.server.asks_permits and not is_admitted(made.home):
        made.is_held = True
        return
    append_unsubmitted(made)


cdef void release_held(exchange* held) noexcept nogil:
    """Have an exchange submitted that was held, by a call that is admitted or over."""
    if held.is_held:
        held.is_held = False
        append_unsubmitted(held)


cdef void append_unsubmitted(exchange* made) noexcept nogil:
    cdef io_thread* thread = made.home.thread
    made.waiting = NULL
    if thread.last_unsubmitted == NULL:
        thread.unsubmitted = made
    else:
        thread.last_unsubmitted.waiting = made
    thread.last_unsubmitted = made


cdef void resume_call(command* given) noexcept nogil:
    """Go on with a call when Python has said what its caller may do; frees the command. On the call's I/O thread."""
    cdef call* subject = given.subject
    cdef exchange* member = subject.exchanges
    note_decision(given)
    release_held(&subject.only)
    while member != NULL:
        release_held(member)
        member = member.next
    free(given)
    drop_call(subject)


cdef bint is_admitted(call* asking) noexcept nogil:
    """Give an open call its permit, or ask for it: then the answer comes as a command, and requests are held until then."""
    cdef int age = int_load(&asking.thread.server.permit_age)
    cdef permit* found
    if asking.awaits_permit:
        return False
    if asking.admitted.allowed != NULL and asking.admitted.age == age:
        return True
    found = find_permit(asking, age)
    if found == NULL:
        ask_permit(asking)
        return False
    admit(&asking.admitted, found, age, asking.home.allowed == NULL)
    asking.admitted.keeps_model = asking.is_counting
    return True


cdef permit* find_permit(call* asking, int age) noexcept nogil:
    cdef connection* home = asking.home
    if home.permit_age != age:
        return NULL
    if home.allowed != NULL:
        return home.allowed
    return find_caller(&asking.thread.callers, age, asking.metadata.data, asking.metadata.size)


cdef void ask_permit(call* asking) noexcept nogil:
    memcpy(asking.peer, asking.home.address, ADDRESS_BYTES)
    if asking.identity == NULL:
        asking.identity = share_peer(asking.home.peer)
    int_add(&asking.references, 1)  # the Python object's
    asking.awaits_permit = True
    if push_event(asking.thread.server, EVENT_ADMIT, asking, NULL, 0) != 0:
        asking.awaits_permit = False
        drop_call(asking)
        fail_call(asking, GRPC_RESOURCE_EXHAUSTED, b"too many calls wait to be told what they may do")


cdef void note_decision(command* given) noexcept nogil:
    """Take Python's answer: for the call, and for those of the same caller that come."""
    cdef call* subject = given.subject
    cdef connection* home = subject.home
    cdef permit* decided = <permit*> given.data
    cdef int age = <int> given.size
    subject.awaits_permit = False
    if home != NULL:
        admit(&subject.admitted, decided, age, given.number)
        subject.admitted.keeps_model = subject.is_counting
        # One that was made before the policy changed is good for what has waited for it only.
        if age == int_load(&subject.thread.server.permit_age):
            drop_permit(home.allowed)
            home.allowed = NULL if given.number else hold_permit(decided)
            home.permit_age = age
            if given.number:
                remember_caller(&subject.thread.callers, age, subject.metadata.data, subject.metadata.size, decided)
    drop_permit(decided)
