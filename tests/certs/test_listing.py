"""The inventory tells what is there and how long it lasts."""

from datetime import UTC, datetime, timedelta

import pytest

from certs import ensure_certificates, inventory
from certs.authority import LEAF_LIFETIME
from certs.identities import AUTHORITIES, IDENTITIES

NOW = datetime(2031, 5, 17, 12, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path):
    """A folder with a full set of certificates, made at NOW."""
    ensure_certificates(tmp_path, now=NOW)
    return tmp_path


def entry(directory, name, now=NOW):
    """The inventory's entry of that name."""
    return next(entry for entry in inventory(directory, now=now) if entry.name == name)


def test_inventory_of_fresh_folder_lists_all_as_valid(directory):
    """Every certificate of the deployment is listed, authorities first."""
    entries = inventory(directory, now=NOW)
    assert [entry.name for entry in entries] == [*AUTHORITIES, *(identity.name for identity in IDENTITIES)]
    assert {entry.state for entry in entries} == {"valid"}


def test_inventory_entry_tells_identity_issuer_and_days(directory):
    """An entry names who it speaks for, who vouches, and the days that remain."""
    found = entry(directory, "client")
    assert found.identity == "spiffe://sluice.local/client/demo"
    assert found.issuer == "sluice gateway-ca"
    assert found.expires == NOW + LEAF_LIFETIME
    assert found.days_left == LEAF_LIFETIME.days


@pytest.mark.parametrize(("days", "state"), [(-31, "valid"), (-29, "expiring"), (0, "expired"), (1, "expired")])
def test_inventory_near_expiry_tells_state(directory, days, state):
    """A certificate is expiring in its last 30 days and expired from its end on."""
    assert entry(directory, "client", NOW + LEAF_LIFETIME + timedelta(days=days)).state == state


def test_inventory_of_missing_and_broken_files_tells_so(directory):
    """What cannot be read is listed all the same."""
    (directory / "client.pem").unlink()
    (directory / "service.pem").write_text("no certificate")
    assert entry(directory, "client").state == "missing"
    assert entry(directory, "service").state == "broken"
    assert entry(directory, "service").expires is None
