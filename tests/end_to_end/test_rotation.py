"""Certificates that are replaced while a server runs: new connections see the new ones, and nobody notices."""

import socket
import ssl
import time

import pytest
from cryptography import x509

from certs import ensure_certificates
from certs.files import replace_file
from tests.end_to_end.deployment_rig import tls_options
from tests.end_to_end.load import run_load
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0
POLL_S = 0.05


@pytest.fixture
def folder(tmp_path):
    """Certificates of the test's own."""
    ensure_certificates(tmp_path)
    return tmp_path


@pytest.fixture
def server(transport, repository, folder):
    """A server that shows them."""
    with ServerProcess(repository, *tls_options(folder)) as server:
        yield server


def fetch_serial(server, folder):
    """Serial number of the certificate that the server shows to a new connection."""
    context = ssl.create_default_context(cafile=str(folder / "internal-ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(folder / "gateway-upstream.pem", folder / "gateway-upstream.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((server.endpoint.host, server.endpoint.port), TIMEOUT_S) as connection,
        context.wrap_socket(connection) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


def read_serial(folder):
    """Serial number of the certificate on disk."""
    return x509.load_pem_x509_certificate((folder / "service.pem").read_bytes()).serial_number


def await_serial(server, folder, wanted):
    """Return when new connections see a certificate."""
    until = time.monotonic() + TIMEOUT_S
    while fetch_serial(server, folder) != wanted:
        assert time.monotonic() < until, server.log
        time.sleep(POLL_S)


def test_renewed_certificate_is_shown_and_no_call_fails(clients, server, folder):
    """Connections that are open stay."""
    before = fetch_serial(server, folder)
    target = Target.of_folder(server.address, folder, "internal-ca", "gateway-upstream")
    with run_load(clients, target, callers=8) as load:
        load.wait_for_more(50)
        ensure_certificates(folder, renew=True)
        assert read_serial(folder) != before
        await_serial(server, folder, read_serial(folder))
        load.wait_for_more(50)
    assert load.failures == []
    assert server.await_event("certificates reloaded")["certificate"] == str(folder / "service.pem")


def test_certificate_without_its_key_is_not_shown_until_that_is_there(clients, server, folder, tmp_path_factory):
    """Half of a replacement leaves the old pair in force."""
    before, made = fetch_serial(server, folder), tmp_path_factory.mktemp("made")
    for path in folder.glob("*.*"):
        replace_file(made / path.name, path.read_bytes())
    ensure_certificates(made, renew=True)
    replace_file(folder / "service.pem", (made / "service.pem").read_bytes())
    until = time.monotonic() + 2.5  # more than two looks at the files
    while time.monotonic() < until:
        assert fetch_serial(server, folder) == before
        time.sleep(POLL_S)
    replace_file(folder / "service.key", (made / "service.key").read_bytes())
    await_serial(server, folder, read_serial(made))
