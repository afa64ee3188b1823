#include "echo.h"

#include <arpa/inet.h>

#define PREFIX_BYTES 5
#define MESSAGE_LIMIT (64u * 1024 * 1024)
/* A larger buffer is given back to the system; of those in between, getting pages anew would be most of a call's cost. */
#define KEPT_BYTES (1024 * 1024)
#define STREAM_WINDOW (16 * 1024 * 1024)
#define CONNECTION_WINDOW ((1 << 30) + STREAM_WINDOW)
#define MAX_STREAMS 1024

/* One call: its message, prefix included, as it came and as it goes back. */
struct echo_call {
    struct echo_call *next; /* among its session's, or among the unused */
    struct echo_call **from; /* what points here: the session, or the call before */
    uint8_t *bytes; /* owned, kept from call to call */
    size_t size;
    size_t capacity;
    size_t sent;
};

static const uint8_t empty_message[PREFIX_BYTES];

#define FIELD(field, text) \
    {(uint8_t *)(field), (uint8_t *)(text), sizeof(field) - 1, sizeof(text) - 1, \
     NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

static const nghttp2_nv headers[] = {FIELD(":status", "200"), FIELD("content-type", "application/grpc")};
static const nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};

static struct echo_call *take_call(struct echo_session *session)
{
    struct echo_call *call = session->server->unused;
    if (call)
        session->server->unused = call->next;
    else if (!(call = calloc(1, sizeof *call)))
        return NULL;
    call->size = call->sent = 0;
    call->from = &session->calls;
    call->next = session->calls;
    if (call->next)
        call->next->from = &call->next;
    session->calls = call;
    return call;
}

static void give_call(struct echo_server *server, struct echo_call *call)
{
    *call->from = call->next;
    if (call->next)
        call->next->from = call->from;
    if (call->capacity > KEPT_BYTES) {
        free(call->bytes);
        call->bytes = NULL;
        call->capacity = 0;
    }
    call->next = server->unused;
    server->unused = call;
}

/* Make room for a chunk; its prefix tells how long the whole message is going to be. */
static int reserve(struct echo_call *call, const uint8_t *chunk, size_t size)
{
    size_t needed = call->size + size;
    if (needed <= call->capacity)
        return 0;
    uint32_t length = 0;
    if (call->size == 0 && size >= PREFIX_BYTES) {
        memcpy(&length, chunk + 1, sizeof length);
        length = ntohl(length);
    }
    if (length > MESSAGE_LIMIT || needed > MESSAGE_LIMIT + PREFIX_BYTES)
        return -1;
    size_t capacity = call->capacity ? 2 * call->capacity : 256;
    if (capacity < needed)
        capacity = needed;
    if (capacity < length + PREFIX_BYTES)
        capacity = length + PREFIX_BYTES;
    uint8_t *grown = realloc(call->bytes, capacity);
    if (!grown)
        return -1;
    call->bytes = grown;
    call->capacity = capacity;
    return 0;
}

static int begin_headers(nghttp2_session *http2, const nghttp2_frame *frame, void *context)
{
    struct echo_session *session = context;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct echo_call *call = take_call(session);
    if (!call)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return nghttp2_session_set_stream_user_data(http2, frame->hd.stream_id, call);
}

static int receive_chunk(
    nghttp2_session *http2, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size, void *context)
{
    (void)flags;
    (void)context;
    struct echo_call *call = nghttp2_session_get_stream_user_data(http2, stream);
    if (!call || reserve(call, bytes, size))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(call->bytes + call->size, bytes, size);
    call->size += size;
    return 0;
}

static ssize_t read_reply(
    nghttp2_session *http2,
    int32_t stream,
    uint8_t *buffer,
    size_t length,
    uint32_t *flags,
    nghttp2_data_source *source,
    void *context)
{
    (void)buffer;
    (void)context;
    struct echo_call *call = source->ptr;
    size_t rest = call->size - call->sent;
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (rest > length)
        return (ssize_t)length;
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (nghttp2_submit_trailer(http2, stream, trailers, 1))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return (ssize_t)rest;
}

/* Called for what read_reply has announced: the message goes from where it was received straight into the output. */
static int send_reply(
    nghttp2_session *http2,
    nghttp2_frame *frame,
    const uint8_t *frame_header,
    size_t length,
    nghttp2_data_source *source,
    void *context)
{
    (void)http2;
    (void)frame;
    struct echo_session *session = context;
    struct echo_call *call = source->ptr;
    if (output_size(&session->output) >= OUTPUT_LIMIT) {
        session->is_held = true;
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    const uint8_t *reply = session->server->is_empty ? empty_message : call->bytes;
    if (!output_append(&session->output, frame_header, 9) ||
        !output_append(&session->output, reply + call->sent, length))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    call->sent += length;
    return 0;
}

static int receive_frame(nghttp2_session *http2, const nghttp2_frame *frame, void *context)
{
    struct echo_session *session = context;
    if (frame->hd.type > NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct echo_call *call = nghttp2_session_get_stream_user_data(http2, frame->hd.stream_id);
    if (!call)
        return 0;
    if (session->server->is_empty)
        call->size = PREFIX_BYTES;
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_reply};
    return nghttp2_submit_response(http2, frame->hd.stream_id, headers, 2, &provider);
}

static int close_stream(nghttp2_session *http2, int32_t stream, uint32_t error, void *context)
{
    (void)error;
    struct echo_session *session = context;
    struct echo_call *call = nghttp2_session_get_stream_user_data(http2, stream);
    if (call)
        give_call(session->server, call);
    return 0;
}

int echo_server_init(struct echo_server *server, bool is_empty)
{
    *server = (struct echo_server){.is_empty = is_empty};
    if (nghttp2_session_callbacks_new(&server->callbacks) || nghttp2_option_new(&server->options))
        return -1;
    nghttp2_session_callbacks_set_on_begin_headers_callback(server->callbacks, begin_headers);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(server->callbacks, receive_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(server->callbacks, receive_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(server->callbacks, close_stream);
    nghttp2_session_callbacks_set_send_data_callback(server->callbacks, send_reply);
    /* A floor: nothing is checked or kept that the echo does not need. */
    nghttp2_option_set_no_http_messaging(server->options, 1);
    nghttp2_option_set_no_closed_streams(server->options, 1);
    return 0;
}

int echo_session_init(struct echo_session *session, struct echo_server *server)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    *session = (struct echo_session){.server = server};
    if (nghttp2_session_server_new2(&session->http2, server->callbacks, session, server->options))
        return -1;
    if (nghttp2_submit_settings(session->http2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        nghttp2_session_set_local_window_size(session->http2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW)) {
        echo_session_free(session);
        return -1;
    }
    return 0;
}

int echo_session_receive(struct echo_session *session, const uint8_t *bytes, size_t size)
{
    return nghttp2_session_mem_recv(session->http2, bytes, size) < 0 ? -1 : 0;
}

int echo_session_fill(struct echo_session *session)
{
    session->is_held = false;
    while (output_size(&session->output) < OUTPUT_LIMIT) {
        const uint8_t *bytes;
        ssize_t size = nghttp2_session_mem_send(session->http2, &bytes);
        if (size < 0 || (size > 0 && !output_append(&session->output, bytes, (size_t)size)))
            return -1;
        if (size == 0)
            return 0;
    }
    session->is_held = true;
    return 0;
}

void echo_session_free(struct echo_session *session)
{
    /* nghttp2 does not tell of streams that end with their session. */
    while (session->calls)
        give_call(session->server, session->calls);
    nghttp2_session_del(session->http2);
    output_free(&session->output);
}
