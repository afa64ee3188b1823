"""Lists of revoked certificates: until when they say who was revoked."""

import re
from datetime import datetime

from cryptography import x509

LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def find_next_update(lists: bytes) -> datetime | None:
    """The first time at which one of several lists (PEM) is to be replaced by its successor; None without any.

    Raises
    ------
    ValueError
        One cannot be read.
    """
    ends = [x509.load_pem_x509_crl(found).next_update_utc for found in LIST.findall(lists)]
    return min((end for end in ends if end is not None), default=None)
