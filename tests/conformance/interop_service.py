"""gRPC's interoperability test service, as an ordinary synchronous servicer of grpcio."""

import time

import grpc

# Compiled on import, in memory.
pb, rpc = grpc.protos_and_services("tests/conformance/interop.proto")

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class InteropService(rpc.TestServiceServicer):
    """What the cases of an interoperability client call.

    `expect_compressed` is not checked: grpcio does not tell a servicer how a request came.
    """

    def EmptyCall(self, request, context):  # noqa: N802
        """Nothing for nothing."""
        return pb.Empty()

    def UnaryCall(self, request, context):  # noqa: N802
        """One payload of the size that is asked for."""
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        _echo_metadata(context)
        _end_as_asked(request, context)
        return pb.SimpleResponse(payload=make_payload(request.response_size))

    def StreamingOutputCall(self, request, context):  # noqa: N802
        """The payloads that the one request asks for, in order."""
        if any(wanted.compressed.value for wanted in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        yield from _answer(request, context)

    def StreamingInputCall(self, request_iterator, context):  # noqa: N802
        """The size of all payloads, once the last is there."""
        size = sum(len(request.payload.body) for request in request_iterator)
        return pb.StreamingInputCallResponse(aggregated_payload_size=size)

    def FullDuplexCall(self, request_iterator, context):  # noqa: N802
        """Each request's payloads, before the next request is read."""
        _echo_metadata(context)
        for request in request_iterator:
            _end_as_asked(request, context)
            yield from _answer(request, context)


def add_interop_service(server):
    """Register it as generated code does."""
    rpc.add_TestServiceServicer_to_server(InteropService(), server)


def make_payload(size):
    """So many zeros."""
    return pb.Payload(body=bytes(size))


def _answer(request, context):
    for wanted in request.response_parameters:
        time.sleep(wanted.interval_us * 1e-6)
        if not wanted.compressed.value:
            context.disable_next_message_compression()
        yield pb.StreamingOutputCallResponse(payload=make_payload(wanted.size))


def _echo_metadata(context):
    given = dict(context.invocation_metadata())
    if ECHO_INITIAL in given:
        context.send_initial_metadata([(ECHO_INITIAL, given[ECHO_INITIAL])])
    if ECHO_TRAILING in given:
        context.set_trailing_metadata([(ECHO_TRAILING, given[ECHO_TRAILING])])


def _end_as_asked(request, context):
    if request.response_status.code:
        context.abort(CODES[request.response_status.code], request.response_status.message)
