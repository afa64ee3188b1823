"""What a server of the native transport consists of: I/O threads, their connections, and the calls on these.

Everything below a connection belongs to its I/O thread and is touched by no other, except where it says so. Lists that
other threads push to are lock-free; whoever pushes wakes the thread when it sleeps.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from kernels.caller_table cimport caller_table
from kernels.dispatch cimport engine_core
from kernels.executor cimport task_list
from kernels.idempotency cimport DIGEST_BYTES
from kernels.nghttp2 cimport nghttp2_option, nghttp2_session, nghttp2_session_callbacks
from kernels.openssl cimport SSL
from kernels.permit cimport admission, permit
from kernels.request cimport request
from kernels.sockets cimport iovec
from kernels.sync cimport pthread_cond_t, pthread_mutex_t, pthread_t
from kernels.tls cimport tls_context
from kernels.tls_peer cimport tls_peer

cdef enum:
    INPUT_BYTES = 256 * 1024       # read from a socket at a time
    OUTPUT_BYTES = 256 * 1024      # of frames that are written to a socket at a time
    OUTPUT_PIECES = 64
    INLINE_MESSAGE_BYTES = 256     # a message up to this size lies in its call
    VERSION_BYTES = 24
    REQUEST_ID_BYTES = 48          # a longer one is not kept
    ADDRESS_BYTES = 80             # "ipv6:%5B...%5D:port"
    FRAME_PREFIX_BYTES = 5         # gRPC's: one byte of flags, four of length
    OUTGOING_PREFIX_BYTES = 48
    MAX_LISTENERS = 8

cdef enum encoding:                # of messages; also bits of what a peer accepts
    IDENTITY = 0
    DEFLATE = 1
    GZIP = 2
    UNKNOWN_ENCODING = 3

cdef enum source_kind:             # what an epoll event is about: the first member of what its pointer leads to
    CONNECTION = 0
    LISTENER = 1
    WAKE = 2
    TICK = 3

cdef enum command_kind:            # from other threads to an I/O thread
    SEND_HEADERS = 0
    SEND_MESSAGE = 1
    SEND_STATUS = 2
    GRANT_MESSAGE = 3
    RESET_CALL = 4
    ADOPT = 5                      # a connection that was accepted
    JUDGE = 6                      # trust has changed: judge every peer again
    DRAIN = 7
    ABORT = 8
    STOP = 9
    ADMIT_CALL = 10                # what a call's caller may do

cdef enum event_kind:              # from I/O threads to Python; the names are kernels.transport's
    EVENT_CALL = 0
    EVENT_MESSAGE = 1
    EVENT_HALF_CLOSE = 2
    EVENT_CLOSED = 3
    EVENT_WRITABLE = 4
    EVENT_STOPPED = 5
    EVENT_FAILURE = 6
    EVENT_ADMIT = 7


cdef struct transport_limits:      # kernels.limits.Limits, times in nanoseconds
    int max_connections
    uint32_t max_streams
    size_t max_header_bytes
    int max_header_fields
    size_t max_message_bytes
    int64_t max_connection_bytes
    int64_t max_buffered_bytes
    int64_t handshake_ns
    int64_t header_ns
    int64_t receive_ns
    int64_t send_ns
    int64_t idle_ns
    int64_t keepalive_ns
    int64_t keepalive_timeout_ns
    int64_t age_ns
    int64_t age_grace_ns
    int max_idle_frames
    int max_resets


cdef struct byte_buffer:
    uint8_t* data
    size_t size
    size_t capacity


cdef struct outgoing:              # one message on its way to the peer
    outgoing* next
    int prefix_size
    uint8_t prefix[OUTGOING_PREFIX_BYTES]
    const uint8_t* data
    size_t size
    void (*release)(outgoing* sent) noexcept nogil   # sent or given up
    void* owner


cdef struct method:                # what is called for a method's calls, on their I/O thread
    char* path
    size_t path_size
    bint keeps_metadata
    char* request_id_header        # what failures are reported with; NULL for Python's methods
    size_t request_id_header_size
    char* version_header           # which version a request means that names none; NULL for Python's methods
    size_t version_header_size
    bint keeps_identity            # whom a gateway speaks for, by the headers that say so
    void* context
    void (*open)(call* opened) noexcept nogil
    void (*take_message)(call* receiver) noexcept nogil       # `message` is whole; the method takes it over
    void (*finish_input)(call* receiver) noexcept nogil
    void (*end)(call* ended, bint sent) noexcept nogil        # the stream is gone; last of all


cdef struct exchange:              # one message of a bound method, from its submission to its reply
    exchange* settled              # first: the link of the thread's list of settled ones
    exchange* next                 # a stream's, in their order
    exchange* waiting              # the thread's list of those to be submitted
    call* home                     # holds a reference while the exchange is submitted
    request* asked
    uint8_t* message               # the engine reads it until it settles; NULL when it lies in the call
    size_t message_size
    size_t message_capacity
    bint is_held                   # until Python has said what the caller may do
    bint submitted
    bint finished                  # settled and taken from the list
    bint unwanted                  # the stream ended before the submission
    byte_buffer refusal            # a stream's answer to a request that failed, or the text of its status
    int failure                    # gRPC's status of such a request
    size_t charged                 # bytes of a stream's reply that waits for those before it
    outgoing reply


cdef struct call:
    call* next                     # the thread's spare calls
    call* previous_open            # of the connection
    call* next_open
    connection* home               # NULL once the stream is gone
    io_thread* thread
    const method* target
    int32_t stream_id
    int references                 # the stream, submitted exchanges, the Python object; changed atomically
    # the request's side
    bint is_open                   # its headers are complete
    bint is_given                  # its method has it
    bint half_closed
    bint is_post
    bint is_grpc
    bint bad_timeout
    bint too_many_headers
    int encoding
    int accepted                   # bits 1 << encoding
    size_t header_bytes
    int header_fields
    byte_buffer metadata           # names and values with their sizes before them
    uint8_t[VERSION_BYTES] version
    size_t version_size
    uint8_t[REQUEST_ID_BYTES] request_id
    size_t request_id_size
    bint ends_on_failure           # a stream that asks to be ended by the status of the first request that fails
    int n_keys                     # idempotency-key fields; what follows is of meaning with one
    byte_buffer key
    uint8_t[DIGEST_BYTES] caller_key
    int64_t deadline_ns            # monotonic; 0 is none
    int64_t last_byte_ns
    int prefix_size                # of the message's prefix, received so far
    uint8_t[FRAME_PREFIX_BYTES] prefix
    uint8_t* message               # points to inline_message or was allocated
    size_t message_size
    size_t message_capacity        # 0 when inline
    size_t message_charged         # of the message: bytes that have come, rounded up
    size_t received
    bint has_message               # a whole one, not taken yet
    bint awaits_message            # a call without one for receive_timeout_s is ended
    int granted                    # messages that the method may still be given; only where it counts them
    bint is_counting               # messages are given only as they are granted
    byte_buffer backlog            # received behind a message that is not granted, kept from the stream's window
    size_t backlog_taken           # of its bytes, from the front
    bint input_finished            # the method has been told that nothing more comes
    # the reply's side
    bint headers_sent
    bint is_deferred
    bint has_status
    bint status_sent
    int status
    byte_buffer status_text
    byte_buffer trailing
    int reply_encoding
    outgoing* first
    outgoing* last
    size_t offset                  # of `first`, sent so far
    size_t waiting                 # bytes in the list
    int64_t charged                # what of its connection's `buffered` is its own
    int64_t last_sent_ns
    # a bound method's
    admission admitted
    bint awaits_permit             # Python was asked
    exchange only                  # of a unary call
    exchange* exchanges            # of a stream, in order
    exchange* last_exchange
    # Python's
    char[ADDRESS_BYTES] peer       # what Python is told of the caller, copied when it is told
    tls_peer* identity             # a reference of its own; NULL without TLS
    bint is_python                 # it was told of, and will be told of the end
    void* handle                   # the object, held from EVENT_CALL to EVENT_CLOSED; under the GIL
    int64_t queued                 # bytes that Python has given and the peer has not taken; changed atomically
    int is_over                    # read by Python's threads: whatever they ask for now comes too late
    int was_high                   # Python waits for `queued` to come down; changed atomically
    uint8_t[INLINE_MESSAGE_BYTES] inline_message


cdef struct connection:
    int kind                       # CONNECTION
    int descriptor
    connection* previous
    connection* next
    connection* next_dirty
    connection* next_unread
    connection* previous_unproven
    connection* next_unproven
    io_thread* thread
    SSL* ssl                       # NULL without TLS, and before the peer has said anything
    tls_context* trust             # under which the peer was judged
    tls_peer* peer                 # NULL without TLS, and until the handshake is done
    int verdict
    int permit_age                 # of the answer that says who is at the other end; 0 before the first
    permit* allowed                # a reference; NULL where the headers of each call say who calls
    nghttp2_session* session
    bint is_handshaking
    bint is_greeted                # the peer's first SETTINGS have come
    bint is_dirty
    bint is_unread                 # more may wait in the socket than was read
    bint is_unproven               # shakes hands, or is to be judged again
    bint is_writable               # the socket took all that it was given last
    bint is_broken
    bint is_leaving                # told to go, twice
    bint is_warned                 # told to go once
    call* calls
    int n_calls
    call* receiving                # whose headers, or trailers, arrive
    uint8_t* pending               # what the socket did not take
    size_t pending_size
    size_t pending_sent
    int64_t accepted_ns
    int64_t last_read_ns
    int64_t last_call_ns
    int64_t last_sent_ns           # bytes of any message
    int64_t stalled_ns             # since when the socket takes nothing; 0 while it does
    int64_t pinged_ns              # 0 when no answer is awaited
    int64_t headers_ns             # since when headers arrive; 0 when complete
    int64_t warned_ns
    int idle_frames                # lately, since something was sent
    int resets                     # lately
    int64_t buffered               # bytes of messages
    char[ADDRESS_BYTES] address


cdef struct listener:
    int kind                       # LISTENER
    int descriptor
    bint has_tls


cdef struct command:
    command* next                  # first: the link of the thread's list
    int kind
    call* subject                  # holds a reference
    uint8_t* data
    size_t size
    byte_buffer metadata
    int number
    connection* adopted


cdef struct ticker:
    int kind                       # TICK
    int descriptor                 # timerfd


cdef struct io_thread:
    int kind                       # WAKE: the epoll event of its eventfd
    int index
    server_core* server
    pthread_t handle
    int poller
    int wake
    int is_asleep                  # changed atomically: who finds 1 wakes it
    void* commands                 # command*, pushed by anybody
    void* settled                  # exchange*, pushed by anybody
    int load                       # connections; read by who accepts
    connection* connections
    connection* dirty
    connection* unread
    connection* unproven           # in the order in which they came
    connection* last_unproven
    connection* buried             # freed at the end of the turn
    exchange* unsubmitted
    exchange* last_unsubmitted
    task_list inlined
    call* spare_calls
    int n_spare_calls
    caller_table callers
    uint8_t* input
    uint8_t* output                # frames to be written to one connection
    size_t output_size
    iovec[OUTPUT_PIECES] pieces    # the same and large messages between them, in order
    int n_pieces
    size_t pieces_size             # bytes of all pieces
    outgoing* sent                 # messages to be released once the pieces are written
    int64_t now_ns
    ticker sweeps                  # says when to sweep
    bint is_ticking
    bint is_sweep_due
    int64_t refused_until_ns       # descriptors ran out: nothing is accepted until then
    int64_t bulky_ns               # when the server held many bytes last; 0 once that memory was given back
    int64_t outstanding            # exchanges that the engine has: the loop outlives them
    int64_t connections_begun      # since the start; these five are written by the thread and read by others
    int64_t calls_begun
    int64_t calls_ended
    int64_t received_bytes         # of HTTP/2, without what TLS adds
    int64_t sent_bytes
    int64_t spin_ns                # looked for more without sleeping, after a turn that had something to do
    bint is_draining
    bint is_stopping


cdef struct event:
    event* next
    int kind
    call* subject                  # holds a reference
    uint8_t* data
    size_t size


cdef struct event_queue:
    pthread_mutex_t lock           # guards what follows
    pthread_cond_t filled
    event* first
    event* last
    int n_calls                    # calls among them, and questions what callers may do
    bint is_closed


cdef struct server_core:
    transport_limits limits
    nghttp2_session_callbacks* callbacks
    nghttp2_option* options
    method* methods                # bound ones
    int n_methods
    bint asks_permits              # a bound method's caller must be allowed what it asks for
    int permit_age                 # changed atomically; answers of another age are forgotten
    method fallback                # everything else: Python's
    io_thread* threads
    int n_threads
    listener[MAX_LISTENERS] listeners
    int n_listeners
    int reserve                    # a descriptor to give up when there are no more
    pthread_mutex_t trust_lock
    tls_context* trust             # for new connections; under the lock
    int n_connections              # changed atomically
    int n_draining                 # threads that have been told; changed atomically
    int is_stopped                 # reported; changed atomically
    int64_t buffered               # bytes of messages, changed atomically
    int64_t failure_window_ns      # for the limit of reported failures
    int failures
    event_queue events


cdef enum:
    PAUSED_NS = 100_000_000        # without descriptors, until the next try to accept
