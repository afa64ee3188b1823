"""Certificates that follow their files: what is put into use, and what leaves the old ones in force."""

import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from certs.files import replace_file
from service.credentials import CertificateError, CertificateFiles, Certificates, CertificateWatch

WAIT_S = 30
FIRST = Certificates(key=b"key", chain=b"chain", authorities=b"authorities")
SECOND = Certificates(key=b"key 2", chain=b"chain 2", authorities=b"authorities")


@pytest.fixture
def folder(tmp_path):
    """A folder with the first certificates."""
    write(tmp_path, FIRST)
    return tmp_path


@pytest.fixture
def files(folder):
    """They are followed."""
    return follow(folder)


def follow(folder):
    """The certificates of a folder."""
    paths = {"tls_key": folder / "key", "tls_cert": folder / "chain", "tls_client_ca": folder / "authorities"}
    lists = folder / "revoked"
    return CertificateFiles(SimpleNamespace(**paths, tls_client_crl=lists if lists.exists() else None))


def write(folder, certificates):
    """Replace the files."""
    for name, content in vars(certificates).items():
        if content is not None:
            replace_file(folder / name, content)


def test_files_that_did_not_change_are_not_read_again(files):
    """There is nothing new."""
    assert files.current == FIRST
    assert files.refresh(lambda certificates: pytest.fail("used again")) is None


def test_files_that_were_replaced_are_used_once(files, folder, caplog):
    """With a line in the log."""
    caplog.set_level("INFO")
    write(folder, SECOND)
    assert files.refresh(lambda certificates: certificates) == SECOND
    assert files.refresh(lambda certificates: certificates) is None
    assert files.current == SECOND
    assert [record.message for record in caplog.records] == ["certificates reloaded"]


def test_files_that_cannot_be_used_leave_the_old_ones_until_they_can(files, folder, caplog):
    """Half of them are replaced at first; that is logged once, not every time that somebody asks."""

    def use(certificates):
        if certificates.key != SECOND.key:
            raise CertificateError("the key is another certificate's")
        return certificates

    replace_file(folder / "chain", SECOND.chain)
    assert [files.refresh(use) for _ in range(3)] == [None] * 3
    assert files.current == FIRST
    assert [record.reason for record in caplog.records] == ["the key is another certificate's"]
    replace_file(folder / "key", SECOND.key)
    assert files.refresh(use) == SECOND


def test_file_that_is_missing_leaves_the_old_ones(files, folder, caplog):
    """Until it is there again."""
    (folder / "key").unlink()
    assert files.refresh(lambda certificates: certificates) is None
    assert "key" in caplog.records[0].reason
    write(folder, SECOND)
    assert files.refresh(lambda certificates: certificates) == SECOND


def test_watch_puts_new_files_into_use_whatever_went_wrong_before(files, folder, caplog):
    """An error that nobody foresaw is logged, and the thread goes on."""
    used, failed = threading.Event(), threading.Event()

    def use(certificates):
        if not failed.is_set():
            failed.set()
            raise ValueError("unforeseen")
        used.set()

    watch = CertificateWatch(files, use, interval_s=0.01)
    write(folder, SECOND)
    assert used.wait(WAIT_S)
    watch.close()
    assert "unforeseen" in caplog.text


def test_file_that_is_appended_to_within_a_tick_of_the_clock_is_new(files, folder):
    """Its time may be the same, its size is not."""
    status = (folder / "authorities").stat()
    with (folder / "authorities").open("ab") as file:
        file.write(b" and more")
    os.utime(folder / "authorities", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.refresh(lambda certificates: certificates).authorities == b"authorities and more"


def test_lists_of_revoked_certificates_are_followed(folder):
    """As the others are."""
    write(folder, replace(FIRST, revoked=b"list"))
    files = follow(folder)
    assert files.current.revoked == b"list"
    write(folder, replace(FIRST, revoked=b"list 2"))
    assert files.refresh(lambda certificates: certificates).revoked == b"list 2"
