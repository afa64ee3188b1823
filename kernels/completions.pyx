"""Carries requests from an event loop into the engine and their replies back: one wake for many completions.

For transports whose calls are Python objects. A worker that settles a request pushes it onto a lock-free list and writes
to an eventfd only when the list was empty; the loop then takes the whole list at once, under the GIL. Messages are
released there too, never by a worker, which has no GIL to release them with.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython cimport final
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf

from kernels.caller_key cimport KEY_TEXT, STREAM_KEY_TEXT, SWITCHED_OFF_TEXT, digest_caller, is_key, keyed_caller
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, open_request, submit_request, withdraw_request
from kernels.engine cimport Engine
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.idempotency cimport DIGEST_BYTES
from kernels.keyed_runs cimport submit_keyed
from kernels.permit cimport Admission
from kernels.request cimport FRESH, SETTLED, request
from kernels.status cimport CANCELLED, EXHAUSTED, INVALID, OK, UNIMPLEMENTED
from kernels.sync cimport counter_add, counter_load, deadline_after, int_load, int_store, list_push, list_take

from kernels.blocking_call import InferError
from kernels.runtime import decode_error

# What a caller hears whose stream sends a key.
STREAM_KEY = STREAM_KEY_TEXT.decode()

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int descriptor, void* data, size_t size) noexcept
    ssize_t write(int descriptor, const void* data, size_t size) noexcept
    int close(int descriptor) noexcept

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept


cdef struct settled_list:
    void* last                   # request*, linked by `completed`
    int wake                     # eventfd
    int64_t pushing              # workers inside push_settled


@final
cdef class Call:
    """One submitted request: ``context`` is the caller's, ``cancel`` settles it early."""

    cdef request* asked          # NULL once its reply has been taken
    cdef CompletionQueue queue
    cdef bytes message           # kept alive until the engine is done with it
    cdef bytes version_hint
    cdef Admission admission     # None where everybody may ask for everything
    cdef bytes key               # of make_key; empty without one
    cdef readonly object context
    cdef readonly bint is_replayed   # answered by what another request was run for
    cdef readonly int64_t retry_ns   # of a refused request: when it may be tried again; 0 for no idea

    def cancel(self):
        """Withdraw the request: waiting it is settled at once, running its reply is dropped, settled nothing happens."""
        if self.asked == NULL:
            return
        if int_load(&self.asked.state) == FRESH:
            self.asked.cancelled = True  # not submitted yet: the flush settles it
        else:
            with nogil:
                withdraw_request(self.queue.engine.core, self.asked)


@final
cdef class CompletionQueue:
    """The completions of one event loop.

    Notes
    -----
    `submit`, `flush`, `Call.cancel` and `drain` belong to the loop's thread. Whoever closes the queue has drained it: every
    submitted call must have come back.
    """

    cdef Engine engine
    cdef settled_list settled
    cdef void* taken             # request*, not submitted yet, linked by `completed`
    cdef readonly int64_t in_flight

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        self.settled.wake = -1
        self.settled.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __dealloc__(self):
        # Every call has come back, since each holds its queue; the last push may still be on its way out.
        while counter_load(&self.settled.pushing) != 0:
            sched_yield()
        if self.settled.wake >= 0:
            close(self.settled.wake)

    def fileno(self):
        """Return the descriptor that becomes readable when completions wait."""
        return self.settled.wake

    def make_key(self, tuple keys not None, bytes peer not None, bytes forwarded not None, bytes token not None):
        """Digest a caller and its key, for `submit`.

        Parameters
        ----------
        keys : tuple of bytes
            What the call's headers have as idempotency-key.
        peer, forwarded, token : bytes
            Whom the peer's certificate names, and x-forwarded-client-cert and sluice-token; empty without them.

        Raises
        ------
        InferError
            There is not one key, or not a good one, or no answers are kept.
        """
        cdef keyed_caller caller
        cdef bytes key = keys[0]
        cdef uint8_t[DIGEST_BYTES] made
        if self.engine.core.keyed.max_bytes == 0:
            raise InferError(UNIMPLEMENTED, SWITCHED_OFF_TEXT.decode())
        caller.peer = view_of(peer)
        caller.forwarded = view_of(forwarded)
        caller.token = view_of(token)
        caller.key = view_of(key)
        if len(keys) > 1 or not is_key(caller.key):
            raise InferError(INVALID, KEY_TEXT.decode())
        if digest_caller(self.engine.core.keyed.digest, self.engine.core.gate.seed, &caller, made) != 0:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*> made, DIGEST_BYTES)

    def submit(self, bytes message not None, context, bytes version_hint not None=b"", int64_t timeout_us=-1,
               Admission admission=None, bytes key not None=b""):
        """Take one ModelInferRequest, to be submitted by the next `flush`; its Call comes out of `drain`.

        Parameters
        ----------
        message : bytes
            The message's wire bytes.
        context : object
            Whatever the caller wants back as ``Call.context``.
        version_hint : bytes
            The version to use when the message names none.
        timeout_us : int
            How long the request may stay queued; negative is without limit.
        admission : Admission
            What the caller may ask for, as decided by the time of the flush; None for everything.
        key : bytes
            What `make_key` gave, of a request that has a key.
        """
        cdef Call call = Call.__new__(Call)
        cdef request* asked = open_request(self.engine.core)
        if asked == NULL:
            raise MemoryError
        call.key = key
        call.queue = self
        call.message = message
        call.version_hint = version_hint
        call.context = context
        call.admission = admission
        call.asked = asked
        asked.message = message
        asked.message_size = len(message)
        asked.version_hint = view_of(version_hint)
        asked.deadline_ns = deadline_after(timeout_us) if timeout_us >= 0 else 0
        if admission is not None:
            asked.admitted = &admission.core
        if key:
            asked.key = <const uint8_t*> <const char*> key
        asked.context = &self.settled
        asked.call = <void*> call
        asked.done = push_settled
        Py_INCREF(call)  # given back by drain
        self.in_flight += 1
        list_push(&self.taken, asked)
        return call

    def flush(self):
        """Submit what was taken since the last flush, all at once: a worker is woken once for a whole loop turn."""
        cdef request* asked = <request*> list_take(&self.taken)
        cdef request* following
        with nogil:
            while asked != NULL:
                following = asked.completed
                if asked.cancelled:
                    refuse_cancelled(asked)
                else:
                    submit(self.engine.core, asked)
                asked = following

    def drain(self):
        """Take every completion that waits.

        Returns
        -------
        list of (Call, int, bytes or str)
            The status code of kernels.status, and the reply's wire bytes or the error's text.
        """
        cdef list taken = []
        cdef request* asked
        cdef request* following
        cdef uint64_t wakes
        # Reset before the list is taken, so that no completion is missed; nothing to read is fine.
        read(self.settled.wake, &wakes, sizeof(wakes))
        asked = <request*> list_take(&self.settled.last)
        while asked != NULL:
            following = asked.completed
            taken.append(self.take_settled(asked))
            asked = following
        return taken

    cdef tuple take_settled(self, request* asked):
        """Turn one settled request into a result and give everything it held back."""
        cdef Call call = <Call> asked.call
        Py_DECREF(call)  # the reference that submit took; `call` holds another
        code = asked.error.code
        try:
            if code == OK:
                payload = PyBytes_FromStringAndSize(<const char*> asked.reply, asked.reply_size)
            else:
                payload = decode_error(asked.error.text)
        except MemoryError:
            # One reply that does not fit must not take the others of this turn with it.
            code, payload = EXHAUSTED, "no memory for the reply"
        call.retry_ns = asked.retry_ns
        call.is_replayed = asked.is_replayed
        call.asked = NULL
        call.message = None
        self.in_flight -= 1
        close_request(self.engine.core, asked)
        return call, code, payload


cdef void submit(engine_core* core, request* asked) noexcept nogil:
    if asked.key == NULL:
        submit_request(core, asked)
    else:
        submit_keyed(core, asked)


cdef bytes_view view_of(bytes text):
    return bytes_view(<const uint8_t*> <const char*> text, len(text))


cdef void refuse_cancelled(request* unwanted) noexcept nogil:
    unwanted.error.code = CANCELLED
    snprintf(unwanted.error.text, FAILURE_TEXT_BYTES, "the request was cancelled before it was queued")
    int_store(&unwanted.state, SETTLED)
    push_settled(unwanted)


cdef void push_settled(request* finished) noexcept nogil:
    """Add a settled request to its queue's list; wake the loop when the list was empty. From any thread."""
    cdef settled_list* list = <settled_list*> finished.context
    cdef uint64_t one = 1
    counter_add(&list.pushing, 1)
    if list_push(&list.last, finished) == NULL:
        write(list.wake, &one, sizeof(one))
    counter_add(&list.pushing, -1)
