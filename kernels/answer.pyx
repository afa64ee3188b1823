"""Writes what a request is answered with into its reply; of an output that has no data yet only what comes before it."""

from libc.stdint cimport int32_t, uint8_t
from libc.stdio cimport snprintf

from kernels.codec cimport bytes_view, encode_response, response_size, response_view
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.instance cimport version_name
from kernels.kept_outputs cimport keep_outputs, kept_size, last_place
from kernels.request cimport request, reserve_reply
from kernels.response cimport output_view, response_parameter
from kernels.status cimport EXHAUSTED


cdef int write_answer(request* member, const version_name* served, const output_view* views,
                      const response_parameter* parameters, int32_t n_parameters, failure* error) noexcept nogil:
    """Answer a request with `views`, one per requested output. 0, or -1 with `error` set and no reply."""
    cdef response_view reply
    cdef uint8_t* target
    cdef size_t size, content = 0
    if member.kept != NULL:
        return keep_answer(member, views, error)
    reply.model_name = bytes_view(<const uint8_t*> served.model, served.model_size)
    reply.model_version = bytes_view(<const uint8_t*> served.version, served.version_size)
    reply.id = member.view.id
    reply.parameters = parameters
    reply.n_parameters = n_parameters
    reply.outputs = views
    reply.n_outputs = member.n_outputs
    if member.n_outputs > 0:
        content = views[member.n_outputs - 1].content.size
    size = response_size(&reply)
    target = reserve_reply(member, size, size - content)
    if target == NULL:
        return refuse_reply(size, error)
    encode_response(&reply, target)
    return 0


cdef int keep_answer(request* member, const output_view* views, failure* error) noexcept nogil:
    """The same for a step of an ensemble, whose outputs stay here."""
    cdef size_t size = kept_size(views, member.n_outputs)
    # Not of 0 bytes, for which there is no memory to be had.
    cdef uint8_t* target = reserve_reply(member, max(size, <size_t> 1), last_place(views, member.n_outputs))
    if target == NULL:
        return refuse_reply(size, error)
    keep_outputs(member.kept, views, member.n_outputs, target)
    return 0


cdef int refuse_reply(size_t size, failure* error) noexcept nogil:
    error.code = EXHAUSTED
    snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a reply of %zu bytes", size)
    return -1
