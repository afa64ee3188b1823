"""A call that Python serves, as Python sees it: what opened it, and what Python has its I/O thread do."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from cython cimport final, no_gc_clear
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from kernels.call cimport drop_call_elsewhere
from kernels.compression cimport deflate_message
from kernels.mailbox cimport push_command
from kernels.permit cimport Permit, hold_permit
from kernels.python_calls cimport HIGH_MARK_BYTES as HIGH_MARK, LOW_MARK_BYTES
from kernels.sync cimport counter_add, counter_load, int_add, int_exchange, int_load, int_store
from kernels.tls_peer cimport describe_peer
from kernels.transport_state cimport (
    ADMIT_CALL, GRANT_MESSAGE, IDENTITY, RESET_CALL, SEND_HEADERS, SEND_MESSAGE, SEND_STATUS, command,
)

from kernels.metadata import decode_metadata, encode_metadata

HIGH_MARK_BYTES = HIGH_MARK

cdef enum:
    MAX_CODE = 16

CallInfo = namedtuple("CallInfo", "method metadata deadline peer auth")
CallInfo.__doc__ = """What opens a call: its path, its metadata, its deadline (seconds of the monotonic clock, or None), who calls."""


@final
@no_gc_clear
cdef class Call:
    """One call of a method that Python serves. Its methods may be called from any thread; after CLOSED they do nothing.

    Not to be cleared by the garbage collector: the native call refers to its transport's threads to the end.
    """

    def __dealloc__(self):
        if self.subject != NULL:
            drop_call_elsewhere(self.subject)

    def request_message(self, bint must_come=False):
        """Let one more MESSAGE come; none comes before the first was asked for. One that must come has its time limit."""
        self.command(GRANT_MESSAGE, None, None, must_come)

    def send_initial_metadata(self, metadata=(), int compress=0):
        """Begin the reply with pairs of names and values; `compress` (1 deflate, 2 gzip) as for send_message."""
        self.begin(compress)
        self.command(SEND_HEADERS, None, encode_metadata(metadata), self.encoding)

    def begin(self, int compress):
        """Settle the reply's encoding: what is asked for, where the client takes it."""
        if not self.has_begun:
            self.has_begun = True
            self.encoding = compress if compress in (1, 2) and self.subject.accepted & (1 << compress) else IDENTITY

    def send_message(self, bytes message not None, int compress=0):
        """Send a message.

        Parameters
        ----------
        message : bytes
            The message.
        compress : int
            0 as it is, 1 deflate, 2 gzip; used where the client takes it and the reply began with the same.

        Returns
        -------
        int
            Bytes of this call that wait to be sent; above HIGH_MARK_BYTES the sender should wait for WRITABLE or CLOSED.
        """
        cdef uint8_t* deflated = NULL
        cdef size_t size = 0
        cdef const uint8_t* plain = <const uint8_t*> <const char*> message
        cdef size_t plain_size = len(message)
        cdef int encoding, failed
        cdef int64_t waiting
        self.begin(compress)
        if int_load(&self.subject.is_over):
            return 0
        encoding = self.encoding if compress != 0 else IDENTITY
        if encoding != IDENTITY:
            with nogil:
                failed = deflate_message(plain, plain_size, encoding == 2, &deflated, &size)
            if failed != 0:
                raise MemoryError
            message = PyBytes_FromStringAndSize(<char*> deflated, size)
            free(deflated)
        waiting = counter_add(&self.subject.queued, len(message))
        self.command(SEND_MESSAGE, message, None, self.encoding << 1 | (encoding != IDENTITY))
        if waiting > HIGH_MARK:
            int_store(&self.subject.was_high, 1)
            waiting = counter_load(&self.subject.queued)
            if waiting < LOW_MARK_BYTES and int_exchange(&self.subject.was_high, 0):
                return waiting
            return max(waiting, <int64_t> HIGH_MARK + 1)
        return waiting

    def send_status(self, int code, str details="", trailing=()):
        """End the call with a gRPC status, behind the messages that wait; the first status holds."""
        if not 0 <= code <= MAX_CODE:
            raise ValueError(f"code is {code}; expected a gRPC status from 0 to {MAX_CODE}")
        self.command(SEND_STATUS, details.encode("utf-8", "replace"), encode_metadata(trailing), code)

    def cancel(self):
        """Break the call off with RST_STREAM."""
        self.command(RESET_CALL, None, None, 0)

    def admit(self, Permit permit not None, bint is_forwarded):
        """Say what the caller of a bound method may do, and whether its headers, not its connection, say who that is."""
        cdef command* given
        if int_load(&self.subject.is_over):
            return
        given = <command*> calloc(1, sizeof(command))
        if given == NULL:
            raise MemoryError
        given.kind = ADMIT_CALL
        given.number = is_forwarded
        given.size = self.age
        given.data = <uint8_t*> hold_permit(permit.core)
        int_add(&self.subject.references, 1)
        given.subject = self.subject
        push_command(self.subject.thread, given)

    cdef int command(self, int kind, bytes data, bytes metadata, int number) except -1:
        """Hand something to do to the call's I/O thread."""
        cdef command* given
        if int_load(&self.subject.is_over):
            return 0
        given = <command*> calloc(1, sizeof(command))
        if given == NULL:
            raise MemoryError
        given.kind = kind
        given.number = number
        if (copy_bytes(data, &given.data, &given.size) != 0
                or copy_bytes(metadata, &given.metadata.data, &given.metadata.size) != 0):
            free(given.data)
            free(given)
            raise MemoryError
        given.metadata.capacity = given.metadata.size
        int_add(&self.subject.references, 1)
        given.subject = self.subject
        push_command(self.subject.thread, given)
        return 0


cdef int copy_bytes(bytes source, uint8_t** data, size_t* size) except? -1:
    """Copy bytes (None leaves NULL) into memory of C's. 0, or -1 without memory."""
    if source is None:
        return 0
    size[0] = len(source)
    data[0] = <uint8_t*> malloc(max(size[0], <size_t> 1))
    if data[0] == NULL:
        return -1
    memcpy(data[0], <const char*> source, size[0])
    return 0


cdef object describe_call(call* subject):
    """Read what an open call has told; its headers do not change any more."""
    fields = decode_metadata(subject.metadata.data[:subject.metadata.size] if subject.metadata.size else b"")
    deadline = subject.deadline_ns / 1e9 if subject.deadline_ns else None
    return CallInfo(
        dict(fields[:1]).get(":path", ""), tuple(fields[1:]), deadline, decode_peer(subject), describe_auth(subject))


cdef Call open_asking(object transport, call* subject):
    """Make an object to answer Python's question with; it takes over the event's reference, and hears of no end."""
    cdef Call made = Call.__new__(Call)
    made.subject = subject
    made.transport = transport
    # Read before anybody looks at the policy: an answer is never taken for newer than it is.
    made.age = int_load(&subject.thread.server.permit_age)
    return made


cdef object describe_asking(call* subject):
    """As describe_call, of a bound method's call, of whose fields only those were kept that say who calls."""
    fields = decode_metadata(subject.metadata.data[:subject.metadata.size] if subject.metadata.size else b"")
    return CallInfo(
        subject.target.path.decode(), tuple(fields), None, decode_peer(subject), describe_auth(subject))


cdef str decode_peer(call* subject):
    return (<const char*> subject.peer).decode("ascii", "replace")


cdef dict describe_auth(call* subject):
    return describe_peer(subject.identity)
