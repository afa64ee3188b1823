"""Names of headers: those on which gateway and service have agreed, and one of gRPC."""

# Set by the gateway, which removes a client's own: the version to use when the message names none.
VERSION_HEADER = "sluice-model-version"
# A client's: the version that it wants, where it can set a header and not the message's field.
PIN_HEADER = "sluice-version"
# Set by the gateway, which removes a client's own: the claims of the caller's token, once that is verified.
TOKEN_HEADER = "sluice-token"
# Envoy's, likewise: whose certificate the gateway's client has shown. kernels/headers.pyx has this and the one above.
CERTIFICATE_HEADER = "x-forwarded-client-cert"
# A client's, on ModelInfer: calls that it repeats with the same are computed once. kernels/headers.pyx has it too.
KEY_HEADER = "idempotency-key"
# In the trailers of an answer that another call was computed for: "replayed". kernels/hot_method.pyx has it too.
REPLAY_HEADER = "sluice-idempotent"
# Triton's: true has the first request of a stream that fails end it with its status. kernels/headers.pyx has it too.
FAILURE_HEADER = "triton_grpc_error"
# Made by the gateway for each request; logs carry it.
REQUEST_ID_HEADER = "x-request-id"
# With an error: a google.rpc.Status that says more than its code and text.
DETAILS_HEADER = "grpc-status-details-bin"
