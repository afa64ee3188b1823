"""Certificates that end: when the log warns, how often, and what metrics say."""

from datetime import UTC, datetime, timedelta

import pytest

from certs.files import replace_file
from service.expiry import METRIC, ExpiryWatch
from service.exposition import write_text
from tests.authorities import Authority

DAY = timedelta(days=1)
SOON, EXPIRED = "certificate expires soon", "certificate has expired"


@pytest.fixture
def authority():
    """Whoever issues what is watched."""
    return Authority()


def watch(tmp_path, *pairs):
    """A watch of one file with some certificates."""
    path = tmp_path / "certificates.pem"
    replace_file(path, b"".join(pair.chain for pair in pairs))
    return ExpiryWatch([path])


def list_told(caplog):
    """Every event since the last time, as level and text."""
    told = [(record.levelname, record.message) for record in caplog.records]
    caplog.clear()
    return told


@pytest.mark.parametrize(
    ("days_left", "told"),
    [
        (31, []),
        (30, [("WARNING", SOON)]),
        (7, [("WARNING", SOON)]),
        (1, [("WARNING", SOON)]),
        (0, [("ERROR", EXPIRED)]),
        (-5, [("ERROR", EXPIRED)]),
    ],
)
def test_certificate_by_days_left_is_warned_of(tmp_path, authority, caplog, days_left, told):
    """From 30 days ahead on."""
    now = datetime.now(UTC)
    watch(tmp_path, authority.issue(ends=365 * DAY)).check(now + (365 - days_left) * DAY)
    assert list_told(caplog) == told


def test_certificate_that_is_checked_often_is_told_once_a_stage(tmp_path, authority, caplog):
    """At 30, 7 and 1 days, and at the end: four events."""
    watched = watch(tmp_path, authority.issue(ends=90 * DAY))
    begun = datetime.now(UTC)
    for hour in range(0, 100 * 24, 6):
        watched.check(begun + timedelta(hours=hour))
    assert [record.days_left for record in caplog.records] == [29, 6, 0, -1]
    assert list_told(caplog) == [("WARNING", SOON)] * 3 + [("ERROR", EXPIRED)]


@pytest.mark.parametrize(("lifetime", "days_left"), [(timedelta(hours=20), [-1]), (5 * DAY, [0, -1])])
def test_certificate_of_short_life_is_warned_of_within_it(tmp_path, authority, caplog, lifetime, days_left):
    """One that lasts for five days is not late on its first."""
    begun = datetime.now(UTC)
    watched = watch(tmp_path, authority.issue(begins=timedelta(0), ends=lifetime))
    for hour in range(7 * 24):
        watched.check(begun + timedelta(hours=hour))
    assert [record.days_left for record in caplog.records] == days_left


def test_certificate_that_was_renewed_in_time_is_told_no_more(tmp_path, authority, caplog):
    """The new one has stages of its own."""
    watched = watch(tmp_path, authority.issue(ends=90 * DAY))
    now = datetime.now(UTC)
    watched.check(now + 70 * DAY)
    assert list_told(caplog) == [("WARNING", SOON)]
    watch(tmp_path, authority.issue(ends=200 * DAY))
    watched.check(now + 89 * DAY)
    assert list_told(caplog) == []
    watched.check(now + 180 * DAY)
    assert list_told(caplog) == [("WARNING", SOON)]


def test_certificates_in_one_file_are_each_told(tmp_path, authority, caplog):
    """A chain ends with its first."""
    now = datetime.now(UTC)
    first, second = (authority.issue(common=name, ends=days * DAY) for name, days in (("first", 60), ("second", 40)))
    watched = watch(tmp_path, first, second)
    watched.check(now + 25 * DAY)
    assert [record.subject for record in caplog.records] == ["CN=second"]
    watched.check(now + 31 * DAY)
    assert [record.subject for record in caplog.records] == ["CN=second", "CN=first"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    ],
)
def test_file_that_cannot_be_read_is_passed_over(tmp_path, content, caplog):
    """Whoever uses it complains."""
    path = tmp_path / "certificates.pem"
    if content is not None:
        path.write_bytes(content)
    watched = ExpiryWatch([path])
    watched.check()
    assert list_told(caplog) == []
    assert write_text(watched.describe()).strip() == b""


def test_list_of_revoked_certificates_is_watched_as_certificates_are(tmp_path, authority, caplog):
    """Past its next update nobody knows whom it should name, so that every client is refused."""
    path = tmp_path / "crl.pem"
    replace_file(path, authority.revoke(ends=10 * DAY) + authority.revoke(ends=60 * DAY))
    watched = ExpiryWatch([path])
    now = datetime.now(UTC)
    for days in (2, 4, 9.5, 11):
        watched.check(now + days * DAY)
    assert [record.message.removeprefix("list of revoked certificates ") for record in caplog.records] == [
        "expires soon",
        "expires soon",
        "has expired",
    ]
    assert f'{METRIC}{{path="{path}",subject="CN=authority"}} ' in write_text(watched.describe()).decode()


def test_metric_of_one_subject_twice_is_that_of_the_first_to_end(tmp_path, authority):
    """An old authority beside its successor: a scraper refuses two samples of the same labels."""
    now = datetime.now(UTC)
    watched = watch(tmp_path, *(authority.issue(common="peer", ends=days * DAY) for days in (40, 20, 30)))
    lines = write_text(watched.describe()).decode().splitlines()
    (sample,) = [line for line in lines if not line.startswith("#")]
    assert sample.startswith(f'{METRIC}{{path="{tmp_path / "certificates.pem"}",subject="CN=peer"}} ')
    assert float(sample.split()[-1]) == pytest.approx((now + 20 * DAY).timestamp(), abs=60)
