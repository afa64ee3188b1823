"""gRPC's own interoperability client, the one written in Go, finds nothing wrong."""

import subprocess

import pytest

from tests.go_program import GoProgram

CLIENT = GoProgram("grpc-go-interop-client", "google.golang.org/grpc/interop/client@v1.85.0")
TIMEOUT_S = 60
CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
)


@pytest.fixture(scope="session")
def client():
    """The program."""
    return CLIENT.find()


@pytest.mark.parametrize("case", CASES)
def test_case_of_interop_client_passes(client, interop_target, case):
    """It ends with 0 when all is as it must be, else it says what was not."""
    host, _, port = interop_target.address.rpartition(":")
    command = [client, "-server_host", host, "-server_port", port, "-test_case", case]
    if interop_target.authority:
        command += ["-use_tls", "-use_test_ca", "-ca_file", str(interop_target.authority)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
