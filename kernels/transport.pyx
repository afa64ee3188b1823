"""The native transport as Python sees it: a server that is set up, started, drained and closed, and its calls' events."""

import os
import socket

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython cimport final, no_gc_clear
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kernels.call cimport drop_call_elsewhere
from kernels.engine cimport Engine
from kernels.hot_method cimport bind_stream, bind_unary
from kernels.http2 cimport prepare_http2
from kernels.io_thread cimport close_thread, join_thread, open_thread, start_thread
from kernels.mailbox cimport push_command
from kernels.nghttp2 cimport nghttp2_option_del, nghttp2_session_callbacks_del
from kernels.python_calls cimport (
    bind_python, close_events, free_event, free_events, open_events, take_events,
)
from kernels.server_call cimport Call, describe_asking, describe_call, open_asking
from kernels.sockets cimport O_CLOEXEC, O_RDONLY, close, open as open_file
from kernels.sync cimport (
    counter_load, int_add, int_load, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from kernels.tls cimport create_context, release_context, retire_context, tls_context
from kernels.transport_state cimport (
    ABORT, DRAIN, EVENT_ADMIT, EVENT_CALL, EVENT_CLOSED, EVENT_FAILURE, EVENT_HALF_CLOSE, EVENT_MESSAGE, EVENT_STOPPED, JUDGE,
    LISTENER, MAX_LISTENERS, STOP, command, event, io_thread, method, transport_limits,
)

from kernels.limits import Limits
from kernels.listening_socket import open_socket
from kernels.unix_socket import SocketFile, read_path

CALL, MESSAGE, HALF_CLOSE, CLOSED, WRITABLE, STOPPED, FAILURE, ADMIT = range(8)

cdef enum:
    MAX_METHODS = 16


@final
@no_gc_clear
cdef class Transport:
    """A gRPC server without handlers: bound methods are answered natively, all other calls are events.

    Parameters
    ----------
    limits : Limits
        What peers are allowed.
    io_threads : int
        Threads that read and write; 0 takes one for each processor, at most four.
    spin_us : int
        How long, in microseconds, an I/O thread looks for more before it sleeps: saves the time of being woken, and
        keeps a processor busy as long as calls come more often than that.
    """

    def __cinit__(self, limits not None, *, int io_threads=0, int spin_us=0):
        if not isinstance(limits, Limits):
            raise TypeError(f"limits must be kernels.limits.Limits, given {type(limits).__name__}")
        if io_threads < 0 or spin_us < 0:
            raise ValueError("io_threads and spin_us must be at least 0")
        self._engines = []
        self._files = []
        self._process = os.getpid()
        self.core.reserve = -1
        copy_limits(&self.core.limits, limits)
        pthread_mutex_init(&self.core.trust_lock, NULL)
        open_events(&self.core.events)
        bind_python(&self.core.fallback)
        self.core.n_threads = io_threads or min(4, len(os.sched_getaffinity(0)))
        self.core.threads = <io_thread*> calloc(self.core.n_threads, sizeof(io_thread))
        self.core.methods = <method*> calloc(MAX_METHODS, sizeof(method))
        if self.core.threads == NULL or self.core.methods == NULL or prepare_http2(&self.core) != 0:
            raise MemoryError
        for index in range(self.core.n_threads):
            self.core.threads[index].poller = self.core.threads[index].wake = -1
            self.core.threads[index].sweeps.descriptor = -1
        for index in range(self.core.n_threads):
            if open_thread(&self.core.threads[index], &self.core, index) != 0:
                raise OSError("no descriptor or no memory for an I/O thread")
            self.core.threads[index].spin_ns = spin_us * <int64_t> 1000
        self.core.reserve = open_file(b"/dev/null", O_RDONLY | O_CLOEXEC)

    def __dealloc__(self):
        if self.core.threads == NULL or self._process != os.getpid():
            return
        self.close()
        drop_events(take_events(&self.core.events, 0))
        free_events(&self.core.events)
        for index in range(self.core.n_threads):
            close_thread(&self.core.threads[index])
        for index in range(self.core.n_methods):
            free(self.core.methods[index].path)
            free(self.core.methods[index].version_header)
            free(self.core.methods[index].request_id_header)
        free(self.core.threads)
        free(self.core.methods)
        release_context(self.core.trust)
        if self.core.callbacks != NULL:
            nghttp2_session_callbacks_del(self.core.callbacks)
        if self.core.options != NULL:
            nghttp2_option_del(self.core.options)
        if self.core.reserve >= 0:
            close(self.core.reserve)
        pthread_mutex_destroy(&self.core.trust_lock)

    def listen(self, str address not None, tls=None):
        """Listen on "host:port", "[IPv6]:port" or "unix:path"; with TlsSettings, over TLS.

        Returns
        -------
        int
            The port; the one that was found when 0 was asked for, 0 for a Unix socket.

        Raises
        ------
        OSError
            The address is taken, or none of this machine's.
        TlsError
            The certificates cannot be used.
        """
        if self._started or self._closed or self.core.n_listeners == MAX_LISTENERS:
            raise ValueError(f"addresses are added before the start, at most {MAX_LISTENERS}")
        if tls is not None:
            self.replace_tls(tls)
        made = open_socket(address)
        port = 0
        if made.family == socket.AF_UNIX:
            self._files.append(SocketFile(read_path(address)))
        else:
            port = made.getsockname()[1]
        self.core.listeners[self.core.n_listeners].kind = LISTENER
        self.core.listeners[self.core.n_listeners].has_tls = tls is not None
        self.core.listeners[self.core.n_listeners].descriptor = made.detach()
        self.core.n_listeners += 1
        return port

    def replace_tls(self, tls not None):
        """Have new handshakes use other certificates; peers that they do not trust any more are cut off.

        All TLS listeners of a server share one set. Raises TlsError, and then nothing has changed.
        """
        cdef tls_context* made = create_context(tls)
        cdef tls_context* old
        pthread_mutex_lock(&self.core.trust_lock)
        old = self.core.trust
        self.core.trust = made
        pthread_mutex_unlock(&self.core.trust_lock)
        retire_context(old)
        release_context(old)
        if self._started and not self._closed:
            self.command_all(JUDGE)

    def bind(self, str path not None, Engine engine not None, *, str version_header="", str request_id_header="",
             bint streaming=False):
        """Answer a method from the engine, from socket to socket without the GIL.

        Parameters
        ----------
        path : str
            Of the method: "/package.Service/Method".
        version_header : str
            The header that says which version a request means that names none.
        request_id_header : str
            The header whose value failures are reported with.
        streaming : bool
            Whether the method is a stream of requests and responses, in the same order.
        """
        if self._started or self.core.n_methods == MAX_METHODS:
            raise ValueError(f"methods are bound before the start, at most {MAX_METHODS}")
        cdef method* made = &self.core.methods[self.core.n_methods]
        made.path = copy_text(path, &made.path_size)
        made.version_header = copy_text(version_header, &made.version_header_size)
        made.request_id_header = copy_text(request_id_header, &made.request_id_header_size)
        if streaming:
            bind_stream(made, engine.core)
        else:
            bind_unary(made, engine.core)
        self._engines.append(engine)
        self.core.n_methods += 1

    def ask_permits(self):
        """Have nobody use a bound method before an ADMIT event was answered by Call.admit; before the start."""
        cdef bytes seed
        if self._started:
            raise ValueError("permits are asked for from the start or never")
        for index in range(self.core.n_threads):
            seed = os.urandom(sizeof(uint64_t))
            self.core.threads[index].callers.seed = (<const uint64_t*> <const char*> seed)[0]
        self.core.permit_age = 1
        self.core.asks_permits = True

    def forget_permits(self):
        """Ask for permits anew, for what comes from now on; whoever is asked must know what has changed already."""
        int_add(&self.core.permit_age, 1)

    def start(self):
        """Accept connections and serve them."""
        if self._started or self._closed:
            raise ValueError("the server was started or closed before")
        self._started = True
        for index in range(self.core.n_threads):
            if start_thread(&self.core.threads[index]) != 0:
                self.core.n_threads = index
                self.close()
                raise OSError("no thread for the server")

    def wait_events(self, double timeout_s):
        """Wait, without the GIL, for what happened to calls.

        Returns
        -------
        list of (int, Call or None, object)
            CALL with CallInfo; MESSAGE with bytes; HALF_CLOSE; CLOSED, the last of a call's, with whether its status
            was sent; WRITABLE; STOPPED, once a drained server has no connection left; FAILURE with (request id, text);
            ADMIT with CallInfo, of a call of a bound method of which nothing else is told.
        """
        cdef event* taken
        cdef event* following
        with nogil:
            taken = take_events(&self.core.events, timeout_s)
        happened = []
        while taken != NULL:
            following = taken.next
            if not is_stale(taken):
                happened.append(self.describe_event(
                    taken.kind, taken.subject,
                    None if taken.data == NULL else PyBytes_FromStringAndSize(<char*> taken.data, taken.size))
                    if taken.kind != EVENT_CLOSED else self.describe_event(
                        EVENT_CLOSED, taken.subject, b"1" if taken.size else b""))
            free_event(taken)
            taken = following
        return happened

    cdef tuple describe_event(self, int kind, call* subject, bytes data):
        if kind == EVENT_CALL:
            made = self.open_call(subject)
            return CALL, made, describe_call(subject)
        if kind == EVENT_ADMIT:
            return ADMIT, open_asking(self, subject), describe_asking(subject)
        if kind == EVENT_STOPPED:
            return STOPPED, None, None
        if kind == EVENT_FAILURE:
            request_id, _, reason = data.partition(b"\0")
            return FAILURE, None, (request_id.decode("ascii", "replace"), reason.decode("utf-8", "replace"))
        found = <Call> subject.handle
        if kind == EVENT_CLOSED:
            subject.handle = NULL
            Py_DECREF(found)
            return CLOSED, found, bool(data)
        return (MESSAGE if kind == EVENT_MESSAGE else HALF_CLOSE if kind == EVENT_HALF_CLOSE else WRITABLE), found, data

    cdef Call open_call(self, call* subject):
        """Make the Python object of a call; it takes over the reference that the event held."""
        cdef Call made = Call.__new__(Call)
        made.subject = subject
        made.transport = self
        subject.handle = <void*> made
        Py_INCREF(made)  # given back with CLOSED
        return made

    cdef int command_all(self, int kind) except -1:
        cdef command* given
        for index in range(self.core.n_threads):
            given = <command*> calloc(1, sizeof(command))
            if given == NULL:
                raise MemoryError
            given.kind = kind
            push_command(&self.core.threads[index], given)
        return 0

    def drain(self):
        """Accept no more, tell every client to go, and let calls go on; STOPPED comes when all are gone."""
        if self._started and not self._closed:
            self.command_all(DRAIN)

    def abort(self):
        """Close every connection and cancel its calls."""
        if self._started and not self._closed:
            self.command_all(ABORT)

    def close(self):
        """Close everything that is left and stop the threads; waits for what the engine still has of this server."""
        cdef int index
        if self._closed:
            return
        self._closed = True
        if self._started:
            self.command_all(DRAIN)
            self.command_all(STOP)
            with nogil:
                for index in range(self.core.n_threads):
                    join_thread(&self.core.threads[index])
        for index in range(self.core.n_listeners):
            close(self.core.listeners[index].descriptor)
        self.core.n_listeners = 0
        close_events(&self.core.events)
        for file in self._files:
            file.remove()

    def statistics(self):
        """Return {"connections", "buffered_bytes"} of this moment."""
        return {"connections": int_load(&self.core.n_connections), "buffered_bytes": counter_load(&self.core.buffered)}

    def traffic(self):
        """Return what all connections together have brought since the start, and how many calls are open.

        Returns
        -------
        dict of str to int
            "connections_begun", "calls_begun", "calls_open", and "received_bytes" and "sent_bytes" of HTTP/2.
        """
        cdef io_thread* thread
        cdef int64_t begun = 0, ended = 0
        total = dict.fromkeys(("connections_begun", "received_bytes", "sent_bytes"), 0)
        for index in range(self.core.n_threads):
            thread = &self.core.threads[index]
            # What has ended is read first: it had begun.
            ended += counter_load(&thread.calls_ended)
            begun += counter_load(&thread.calls_begun)
            total["connections_begun"] += counter_load(&thread.connections_begun)
            total["received_bytes"] += counter_load(&thread.received_bytes)
            total["sent_bytes"] += counter_load(&thread.sent_bytes)
        return {**total, "calls_begun": begun, "calls_open": begun - ended}


cdef bint is_stale(event* taken) noexcept nogil:
    """Whether the event is of a call that was over before Python heard of it, and never will; its last drops the call.

    Who resets calls as fast as it begins them costs Python nothing.
    """
    if taken.subject == NULL or taken.subject.handle != NULL:
        return False
    if taken.kind == EVENT_ADMIT:
        if not int_load(&taken.subject.is_over):
            return False
        drop_call_elsewhere(taken.subject)
        return True
    if taken.kind == EVENT_CLOSED:
        drop_call_elsewhere(taken.subject)
    return taken.kind != EVENT_CALL or int_load(&taken.subject.is_over)


cdef void drop_events(event* last) noexcept nogil:
    """Free events that nobody will hear of, and the calls whose end is among them."""
    cdef event* following
    while last != NULL:
        following = last.next
        is_stale(last)
        free_event(last)
        last = following


cdef char* copy_text(str text, size_t* size) except NULL:
    cdef bytes encoded = text.encode()
    cdef char* copied = <char*> calloc(len(encoded) + 1, 1)
    if copied == NULL:
        raise MemoryError
    memcpy(copied, <const char*> encoded, len(encoded))
    size[0] = len(encoded)
    return copied


cdef int copy_limits(transport_limits* target, limits) except -1:
    """Check a Limits and copy it, seconds as nanoseconds."""
    for name, value in vars(limits).items():
        least = 0 if name.endswith("_s") and not name.endswith("_per_s") else 1
        if not value >= least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    target.max_connections = limits.max_connections
    target.max_streams = limits.max_streams
    target.max_header_bytes = limits.max_header_bytes
    target.max_header_fields = limits.max_header_fields
    target.max_message_bytes = limits.max_message_bytes
    target.max_connection_bytes = limits.max_connection_bytes
    target.max_buffered_bytes = limits.max_buffered_bytes
    target.handshake_ns = nanoseconds(limits.handshake_timeout_s)
    target.header_ns = nanoseconds(limits.header_timeout_s)
    target.receive_ns = nanoseconds(limits.receive_timeout_s)
    target.send_ns = nanoseconds(limits.send_timeout_s)
    target.idle_ns = nanoseconds(limits.idle_timeout_s)
    target.keepalive_ns = nanoseconds(limits.keepalive_time_s)
    target.keepalive_timeout_ns = nanoseconds(limits.keepalive_timeout_s)
    target.age_ns = nanoseconds(limits.max_connection_age_s)
    target.age_grace_ns = nanoseconds(limits.max_connection_age_grace_s)
    target.max_idle_frames = limits.max_idle_frames_per_s
    target.max_resets = limits.max_resets_per_s
    return 0


cdef int64_t nanoseconds(double seconds):
    return <int64_t> (min(seconds, 1e9) * 1e9)
