"""Replies of the response cache for steps of ensembles, whose outputs have no frame."""

from kernels.instance cimport version_name
from kernels.request cimport request
from kernels.signature cimport signature
from kernels.wire cimport bytes_view


cdef int unpack_reply(const signature* accepted, bytes_view reply, request* asked) noexcept nogil
cdef bytes_view pack_reply(const signature* accepted, const version_name* served, const request* answered) noexcept nogil
