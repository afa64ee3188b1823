"""Declarations of libnghttp2, as far as the transport uses it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "nghttp2/nghttp2.h" nogil:
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass
    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value
    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags
    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags
    ctypedef struct nghttp2_headers:
        nghttp2_frame_hd hd
        int cat
    ctypedef struct nghttp2_data:
        nghttp2_frame_hd hd
        size_t padlen
    ctypedef struct nghttp2_goaway:
        nghttp2_frame_hd hd
        int32_t last_stream_id
        uint32_t error_code
    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_data data
        nghttp2_headers headers
        nghttp2_goaway goaway
    ctypedef union nghttp2_data_source:
        int fd
        void* ptr
    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session* session, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
        nghttp2_data_source* source, void* user_data) noexcept nogil
    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    int NGHTTP2_DATA, NGHTTP2_HEADERS, NGHTTP2_PRIORITY, NGHTTP2_RST_STREAM, NGHTTP2_SETTINGS, NGHTTP2_PING
    int NGHTTP2_GOAWAY, NGHTTP2_WINDOW_UPDATE, NGHTTP2_CONTINUATION
    int NGHTTP2_FLAG_NONE, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_END_HEADERS, NGHTTP2_FLAG_ACK
    int NGHTTP2_HCAT_REQUEST
    int NGHTTP2_NV_FLAG_NONE, NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE
    int NGHTTP2_DATA_FLAG_NONE, NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_DATA_FLAG_NO_COPY
    int NGHTTP2_ERR_WOULDBLOCK, NGHTTP2_ERR_DEFERRED, NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    int NGHTTP2_ERR_CALLBACK_FAILURE
    int NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR, NGHTTP2_INTERNAL_ERROR, NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL
    int NGHTTP2_FRAME_SIZE_ERROR, NGHTTP2_ENHANCE_YOUR_CALM
    int NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    int NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, NGHTTP2_SETTINGS_ENABLE_PUSH

    ctypedef int (*nghttp2_on_begin_headers_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_header_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t namelen,
        const uint8_t* value, size_t valuelen, uint8_t flags, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_frame_recv_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_begin_frame_callback)(
        nghttp2_session* session, const nghttp2_frame_hd* hd, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_invalid_frame_recv_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, int error, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_data_chunk_recv_callback)(
        nghttp2_session* session, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t len,
        void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_stream_close_callback)(
        nghttp2_session* session, int32_t stream_id, uint32_t error_code, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_frame_send_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_on_frame_not_send_callback)(
        nghttp2_session* session, const nghttp2_frame* frame, int error, void* user_data) noexcept nogil
    ctypedef int (*nghttp2_send_data_callback)(
        nghttp2_session* session, nghttp2_frame* frame, const uint8_t* framehd, size_t length,
        nghttp2_data_source* source, void* user_data) noexcept nogil

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks** made) noexcept
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks* used) noexcept
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_begin_headers_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_header_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_begin_frame_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_begin_frame_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_frame_recv_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_invalid_frame_recv_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_data_chunk_recv_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_stream_close_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_frame_send_callback callback) noexcept
    void nghttp2_session_callbacks_set_on_frame_not_send_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_on_frame_not_send_callback callback) noexcept
    void nghttp2_session_callbacks_set_send_data_callback(
        nghttp2_session_callbacks* callbacks, nghttp2_send_data_callback callback) noexcept

    int nghttp2_option_new(nghttp2_option** made) noexcept
    void nghttp2_option_del(nghttp2_option* used) noexcept
    void nghttp2_option_set_no_auto_window_update(nghttp2_option* option, int value) noexcept
    void nghttp2_option_set_no_closed_streams(nghttp2_option* option, int value) noexcept
    void nghttp2_option_set_max_outbound_ack(nghttp2_option* option, size_t value) noexcept
    void nghttp2_option_set_max_settings(nghttp2_option* option, size_t value) noexcept
    void nghttp2_option_set_max_send_header_block_length(nghttp2_option* option, size_t value) noexcept
    void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option* option, uint64_t burst, uint64_t rate) noexcept
    void nghttp2_option_set_max_continuations(nghttp2_option* option, size_t value) noexcept

    int nghttp2_session_server_new2(nghttp2_session** made, const nghttp2_session_callbacks* callbacks,
                                    void* user_data, const nghttp2_option* option) noexcept
    void nghttp2_session_del(nghttp2_session* used) noexcept
    ssize_t nghttp2_session_mem_recv(nghttp2_session* session, const uint8_t* data, size_t size) noexcept
    ssize_t nghttp2_session_mem_send(nghttp2_session* session, const uint8_t** data) noexcept
    int nghttp2_session_want_read(nghttp2_session* session) noexcept
    int nghttp2_session_want_write(nghttp2_session* session) noexcept
    void* nghttp2_session_get_stream_user_data(nghttp2_session* session, int32_t stream_id) noexcept
    int nghttp2_session_set_stream_user_data(nghttp2_session* session, int32_t stream_id, void* data) noexcept
    int nghttp2_session_consume_connection(nghttp2_session* session, size_t size) noexcept
    int nghttp2_session_consume_stream(nghttp2_session* session, int32_t stream_id, size_t size) noexcept
    int nghttp2_session_resume_data(nghttp2_session* session, int32_t stream_id) noexcept
    int nghttp2_session_set_local_window_size(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                                              int32_t window_size) noexcept
    int32_t nghttp2_session_get_stream_remote_window_size(nghttp2_session* session, int32_t stream_id) noexcept
    int nghttp2_session_terminate_session(nghttp2_session* session, uint32_t error_code) noexcept
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session* session) noexcept
    int nghttp2_submit_settings(nghttp2_session* session, uint8_t flags, const nghttp2_settings_entry* entries,
                                size_t count) noexcept
    int nghttp2_submit_response(nghttp2_session* session, int32_t stream_id, const nghttp2_nv* headers, size_t count,
                                const nghttp2_data_provider* provider) noexcept
    int nghttp2_submit_headers(nghttp2_session* session, uint8_t flags, int32_t stream_id, const void* priority,
                               const nghttp2_nv* headers, size_t count, void* user_data) noexcept
    int nghttp2_submit_data(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                            const nghttp2_data_provider* provider) noexcept
    int nghttp2_submit_trailer(nghttp2_session* session, int32_t stream_id, const nghttp2_nv* headers,
                               size_t count) noexcept
    int nghttp2_submit_rst_stream(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                                  uint32_t error_code) noexcept
    int nghttp2_submit_ping(nghttp2_session* session, uint8_t flags, const uint8_t* opaque) noexcept
    int nghttp2_submit_goaway(nghttp2_session* session, uint8_t flags, int32_t last_stream_id, uint32_t error_code,
                              const uint8_t* opaque, size_t size) noexcept
    int nghttp2_submit_shutdown_notice(nghttp2_session* session) noexcept
