#include "session.h"

#include <stdio.h>
#include <stdlib.h>

#define STREAM_WINDOW (16 * 1024 * 1024)
#define CONNECTION_WINDOW ((1 << 30) + STREAM_WINDOW)
#define FRAME_HEADER_BYTES 9

void session_fail(const char *what)
{
    fprintf(stderr, "loadgen: %s\n", what);
    exit(1);
}

static struct call *take_call(struct client *client)
{
    struct call *call = client->unused;
    if (call)
        client->unused = call->next;
    else if (!(call = malloc(sizeof *call)))
        session_fail("out of memory");
    *call = (struct call){.grpc_status = -1};
    return call;
}

static enum outcome judge(const struct call *call, uint32_t error)
{
    if (error)
        return OUTCOME_RESET;
    if (call->http_status != 200)
        return OUTCOME_HTTP;
    if (call->grpc_status < 0)
        return OUTCOME_TRAILERS;
    return call->grpc_status ? OUTCOME_STATUS : OUTCOME_OK;
}

static int receive_header(
    nghttp2_session *http2,
    const nghttp2_frame *frame,
    const uint8_t *name,
    size_t name_size,
    const uint8_t *value,
    size_t value_size,
    uint8_t flags,
    void *context)
{
    (void)value_size;
    (void)flags;
    (void)context;
    /* nghttp2 ends every value with a 0. */
    if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
        struct call *call = nghttp2_session_get_stream_user_data(http2, frame->hd.stream_id);
        if (call)
            call->grpc_status = atoi((const char *)value);
    } else if (name_size == 7 && memcmp(name, ":status", 7) == 0) {
        struct call *call = nghttp2_session_get_stream_user_data(http2, frame->hd.stream_id);
        if (call)
            call->http_status = atoi((const char *)value);
    }
    return 0;
}

static int receive_chunk(
    nghttp2_session *http2, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size, void *context)
{
    (void)flags;
    (void)bytes;
    (void)context;
    struct call *call = nghttp2_session_get_stream_user_data(http2, stream);
    if (call)
        call->reply_bytes += size;
    return 0;
}

static int receive_frame(nghttp2_session *http2, const nghttp2_frame *frame, void *context)
{
    (void)http2;
    struct connection *connection = context;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        connection->has_greeting = true;
    return 0;
}

static int close_stream(nghttp2_session *http2, int32_t stream, uint32_t error, void *context)
{
    struct connection *connection = context;
    struct client *client = connection->client;
    struct call *call = nghttp2_session_get_stream_user_data(http2, stream);
    if (!call)
        return 0;
    connection->in_flight--;
    client->on_call(client->driver, connection, call, judge(call, error));
    call->next = client->unused;
    client->unused = call;
    return 0;
}

static ssize_t read_request(
    nghttp2_session *http2,
    int32_t stream,
    uint8_t *buffer,
    size_t length,
    uint32_t *flags,
    nghttp2_data_source *source,
    void *context)
{
    (void)http2;
    (void)stream;
    (void)buffer;
    const struct connection *connection = context;
    const struct call *call = source->ptr;
    size_t rest = connection->client->options->frame_size - call->sent;
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (rest > length)
        return (ssize_t)length;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)rest;
}

/* Called for what read_request has announced: the message is copied once, into the output. */
static int send_request(
    nghttp2_session *http2,
    nghttp2_frame *frame,
    const uint8_t *frame_header,
    size_t length,
    nghttp2_data_source *source,
    void *context)
{
    (void)http2;
    (void)frame;
    struct connection *connection = context;
    struct call *call = source->ptr;
    if (output_size(&connection->output) >= OUTPUT_LIMIT)
        return NGHTTP2_ERR_WOULDBLOCK;
    if (!output_append(&connection->output, frame_header, FRAME_HEADER_BYTES) ||
        !output_append(&connection->output, connection->client->options->frame + call->sent, length))
        session_fail("out of memory");
    call->sent += length;
    return 0;
}

void session_prepare(struct client *client)
{
    if (nghttp2_session_callbacks_new(&client->callbacks) || nghttp2_option_new(&client->http2_options))
        session_fail("out of memory");
    nghttp2_session_callbacks_set_on_header_callback(client->callbacks, receive_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(client->callbacks, receive_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(client->callbacks, receive_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(client->callbacks, close_stream);
    nghttp2_session_callbacks_set_send_data_callback(client->callbacks, send_request);
    nghttp2_option_set_no_closed_streams(client->http2_options, 1);
}

void session_open(struct connection *connection)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
    };
    const struct client *client = connection->client;
    if (nghttp2_session_client_new2(&connection->http2, client->callbacks, connection, client->http2_options) ||
        nghttp2_submit_settings(connection->http2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        nghttp2_session_set_local_window_size(connection->http2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW))
        session_fail("out of memory");
}

void session_begin_call(struct connection *connection, int64_t started_ns)
{
    struct client *client = connection->client;
    struct call *call = take_call(client);
    call->started_ns = started_ns;
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_request};
    if (nghttp2_submit_request(
            connection->http2, NULL, client->options->headers, client->options->n_headers, &provider, call) < 0)
        session_fail("cannot begin a call: the connection's stream numbers are used up");
}

int session_fill(struct connection *connection)
{
    while (output_size(&connection->output) < OUTPUT_LIMIT) {
        const uint8_t *bytes;
        ssize_t size = nghttp2_session_mem_send(connection->http2, &bytes);
        if (size < 0)
            return -1;
        if (size == 0)
            return 0;
        if (!output_append(&connection->output, bytes, (size_t)size))
            session_fail("out of memory");
    }
    return 0;
}
