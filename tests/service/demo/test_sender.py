"""How digits are sent when all is not well; the end-to-end test of the command sends them where it is."""

import numpy as np
import pytest

from certs import ensure_certificates
from service.client import Credentials
from service.demo import sender as module
from service.demo.digits import DemoError, Scans
from service.demo.sender import DigitSender

SCANS = Scans(np.zeros((3, 64), np.float32), np.arange(3))


@pytest.fixture
def sender(tmp_path):
    """Two connections to a port that nobody listens on."""
    ensure_certificates(tmp_path / "certs")
    with DigitSender("127.0.0.1:1", Credentials.of_state(tmp_path), SCANS, connections=2) as sender:
        yield sender


def test_send_counts_failures_and_stops_at_many(sender):
    """Nothing is raised, and nobody waits for hundreds of deadlines; the action midway happens all the same."""
    reports, calls = [], []
    outcomes = sender.send(100, reports.append, midway=(50, lambda: calls.append("shifted")))
    assert [outcome.failure[:15] for outcome in outcomes] == ["no connection: "] * 2 * module.MAX_FAILURES
    assert {outcome.version for outcome in outcomes} == {0}
    assert reports[-1] == len(outcomes)
    assert calls == ["shifted"]


def test_connect_without_a_gateway_says_so(sender, monkeypatch):
    """And who was to be reached."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    with pytest.raises(DemoError, match=r"no connection to 127\.0\.0\.1:1 within"):
        sender.connect()
