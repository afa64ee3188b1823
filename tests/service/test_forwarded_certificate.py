"""What a gateway says of its client's certificate, and what no gateway of ours would."""

import pytest

from service.forwarded_certificate import ForwardedCertificateError, read_uris

HASH = "0" * 64
URI = "spiffe://sluice.local/client/demo"


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        (f"Hash={HASH};URI={URI}", (URI,)),
        (f"By=spiffe://sluice.local/gateway;Hash={HASH};URI={URI}", (URI,)),
        (f"By=spiffe://a/b;By=spiffe://a/c;Hash={HASH};URI={URI}", (URI,)),
        (f'Hash={HASH};Subject="CN=a,O=\\"b\\";c";URI={URI}', (URI,)),
        (f'Hash={HASH};URI="{URI}"', (URI,)),
        (f"hash={HASH};uri={URI}", (URI,)),
        (f"Hash={HASH};URI=", ()),
        (f"Hash={HASH}", ()),
        (f"Hash={HASH};URI=urn:a=b", ("urn:a=b",)),
    ],
)
def test_uris_are_those_of_the_one_certificate(text, uris):
    """With other fields beside them, quoted or not."""
    assert read_uris(text) == uris


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "URI",
        URI,
        f"Hash={HASH};URI={URI};",
        f"Hash={HASH};URI={URI},Hash={HASH};URI={URI}",
        f"Hash={HASH};URI={URI};URI=spiffe://sluice.local/operator",
        f"Hash={HASH};URI=spiffe://a/b,spiffe://a/c",
        f"Hash={HASH};Hash={HASH};URI={URI}",
        f"Hash=short;URI={URI}",
        f'Hash={HASH};URI="{URI}',
        f'Hash={HASH};URI="{URI}"x',
        f"Hash={HASH};;URI={URI}",
        f"Hash={HASH}; URI={URI}",
        f"URI={URI};Hash={HASH}",
        f"Hash={HASH};URI={URI};By=x",
        f"Hash={HASH};URI={URI};DNS=localhost",
    ],
)
def test_other_forms_are_refused(text):
    """Several certificates, a name that was taken for two, what is cut off."""
    with pytest.raises(ForwardedCertificateError, match="expected"):
        read_uris(text)
