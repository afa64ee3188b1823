"""Names of headers: those on which gateway and service have agreed, and one of gRPC."""

# Set by the gateway, which removes a client's own: the version to use when the message names none.
VERSION_HEADER = "sluice-model-version"
# A client's own: the version that it wants.
PIN_HEADER = "sluice-version"
# Triton's: true has the first request of a stream that fails end it with its status. kernels/headers.pyx has it too.
FAILURE_HEADER = "triton_grpc_error"
# Made by the gateway for each request; logs carry it.
REQUEST_ID_HEADER = "x-request-id"
# With an error: a google.rpc.Status that says more than its code and text.
DETAILS_HEADER = "grpc-status-details-bin"
