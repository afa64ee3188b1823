"""A server whose certificate is about to expire."""

from datetime import timedelta

from certs.files import replace_file
from service.expiry import METRIC
from tests.authorities import Authority
from tests.end_to_end.metrics_page import read_samples
from tests.end_to_end.server_process import ServerProcess

DAY = timedelta(days=1)


def test_certificate_that_is_about_to_expire_is_logged_and_in_metrics(repository, tmp_path):
    """Weeks before clients would find out."""
    authority = Authority()
    own = authority.serve(begins=-360 * DAY, ends=5 * DAY)
    for name, content in (("service.pem", own.chain), ("service.key", own.key), ("ca.pem", authority.pem)):
        replace_file(tmp_path / name, content)
    flags = {"--tls-cert": "service.pem", "--tls-key": "service.key", "--tls-client-ca": "ca.pem"}
    options = [part for flag, name in flags.items() for part in (flag, tmp_path / name)]
    with ServerProcess(repository, *options, "--allowed-client", "spiffe://test", "--metrics-port", "0") as server:
        told = server.await_event("certificate expires soon")
        assert (told["level"], told["path"], told["days_left"]) == ("warning", str(tmp_path / "service.pem"), 4)
        samples = read_samples(server.await_event("ready")["metrics"])
    ends = {name: value for name, value in samples.items() if name.startswith(METRIC)}
    assert len(ends) == 2
    assert min(ends, key=ends.get) == f'{METRIC}{{path="{tmp_path / "ca.pem"}",subject="CN=authority"}}'
