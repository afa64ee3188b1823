"""kernels.caller_key: whose key it is, by what stays the same when certificates and tokens are renewed."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_messages import SEARCH

from kernels import status
from kernels.blocking_call import InferError
from kernels.completions import CompletionQueue
from kernels.engine import Engine


@pytest.fixture(scope="module")
def queue():
    """A queue of an engine that keeps answers."""
    engine = Engine(workers=1, idempotency_bytes=1 << 20)
    yield CompletionQueue(engine)
    engine.close()


def make_key(queue, peer=b"", forwarded=b"", token=b""):
    """The digest of a caller with always the same key."""
    return queue.make_key((b"key",), peer, forwarded, token)


def encode_token(**claims):
    """Claims as the gateway hands them on."""
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")


# Pairs of callers, as peer, forwarded, token.
SAME = {
    "certificate renewed": [
        (b"gw", b"By=spiffe://g;Hash=aa;URI=spiffe://a", b""),
        (b"gw", b"By=spiffe://g;Hash=bb;URI=spiffe://a", b""),
    ],
    "token renewed": [
        (b"gw", b"", encode_token(iss="i", sub="s", exp=1, more={"sub": "x", "list": ["}", {}]})),
        (b"gw", b"", encode_token(exp=2, sub="s", jti="9\\", iss="i")),
    ],
}
OTHERS = {
    "peer": [(b"a", b"", b""), (b"b", b"", b"")],
    "no peer": [(b"a", b"", b""), (b"", b"", b"")],
    "certificate": [(b"gw", b"Hash=aa;URI=spiffe://a", b""), (b"gw", b"Hash=aa;URI=spiffe://b", b"")],
    "two names": [(b"gw", b"URI=spiffe://a;URI=spiffe://b", b""), (b"gw", b"URI=spiffe://a", b"")],
    "name within a quoted text": [
        (b"gw", b'Subject="x;URI=spiffe://a";Hash=1', b""),
        (b"gw", b"URI=spiffe://a", b""),
    ],
    "certificate without a name": [(b"gw", b"By=b;Hash=aa", b""), (b"gw", b"By=b;Hash=bb", b"")],
    "claimed by another peer": [(b"gw", b"URI=spiffe://a", b""), (b"a", b"URI=spiffe://a", b"")],
    "parts in other places": [(b"ab", b"", b""), (b"a", b"b", b"")],
    "subject": [(b"", b"", encode_token(iss="i", sub="a")), (b"", b"", encode_token(iss="i", sub="b"))],
    "issuer": [(b"", b"", encode_token(iss="i", sub="a")), (b"", b"", encode_token(iss="j", sub="a"))],
    "subject within": [
        (b"", b"", encode_token(iss="i", more={"sub": "a"}, n=1)),
        (b"", b"", encode_token(iss="i", more={"sub": "a"}, n=2)),
    ],
    "no token": [(b"", b"", encode_token(iss="i", sub="a")), (b"", b"", b"")],
    "no object": [(b"", b"", b"ImEi"), (b"", b"", b"ImIi")],
    "cut off": [
        (b"", b"", encode_token(iss="i", sub="a", z=1)[:-4]),
        (b"", b"", encode_token(iss="i", sub="a", z=1)[:-8]),
    ],
}


@pytest.mark.parametrize("callers", SAME.values(), ids=SAME)
def test_caller_stays_the_same_when_its_proof_is_renewed(queue, callers):
    """A certificate's hash and a token's times are no part of who it is."""
    first, second = (make_key(queue, *caller) for caller in callers)
    assert first == second


@pytest.mark.parametrize("callers", OTHERS.values(), ids=OTHERS)
def test_another_caller_is_another_caller(queue, callers):
    """Whoever repeats somebody else's key has another one."""
    first, second = (make_key(queue, *caller) for caller in callers)
    assert first != second


@pytest.mark.parametrize("keys", [(b"",), (b"x" * 256,), (b"a b",), (b"a\tb",), ("ä".encode(),), (b"a", b"a")])
def test_key_that_is_none_is_refused(queue, keys):
    """Empty, too long, not visible, or two of them."""
    with pytest.raises(InferError, match="1 to 255 visible ASCII") as refusal:
        queue.make_key(keys, b"", b"", b"")
    assert refusal.value.code == status.INVALID
    assert len(queue.make_key((b"!" * 255,), b"", b"", b"")) == 32


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts, st.just('",}{][\\')),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(texts, st.just("sub")), inner, max_size=3)
    ),
    max_leaves=8,
)


@SEARCH
@given(
    st.dictionaries(texts, values, max_size=5),
    texts.filter(bool),
    st.randoms(use_true_random=False),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_subject_is_found_among_any_claims(queue, claims, subject, chance, indent, is_ascii):
    """As a JSON parser finds it, whatever stands before and behind, and however it is written."""
    pairs = [*({**claims, "iss": "issuer", "sub": subject}).items()]
    chance.shuffle(pairs)
    written = json.dumps(dict(pairs), indent=indent, ensure_ascii=is_ascii)
    alone = json.dumps({"iss": "issuer", "sub": subject}, ensure_ascii=is_ascii)
    tokens = [base64.urlsafe_b64encode(text.encode("utf-8")).rstrip(b"=") for text in (written, alone)]
    assert make_key(queue, token=tokens[0]) == make_key(queue, token=tokens[1])
    other = json.dumps({"iss": "issuer", "sub": subject + "x"}, ensure_ascii=is_ascii)
    assert make_key(queue, token=base64.urlsafe_b64encode(other.encode())) != make_key(queue, token=tokens[0])


@SEARCH
@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_nonsense_stands_for_itself(queue, first, second, is_encoded):
    """Two headers that name nobody are the same only if they are."""
    for name in ("token", "forwarded"):
        texts = [base64.urlsafe_b64encode(each) if is_encoded else each for each in (first, second)]
        assert (make_key(queue, **{name: texts[0]}) == make_key(queue, **{name: texts[1]})) == (texts[0] == texts[1])


@SEARCH
@given(st.text('{}[]",: \\subi', min_size=1, max_size=40))
def test_broken_claims_are_read_to_their_end_and_no_further(queue, text):
    """Brackets, quotes and backslashes at random, in which there is no subject: they stand for themselves."""
    tokens = [base64.urlsafe_b64encode(each.encode()) for each in (text, text, text + " ")]
    keys = [make_key(queue, token=token) for token in tokens]
    assert keys[0] == keys[1] != make_key(queue)
    assert keys[2] != keys[0] or ('"iss"' in text and '"sub"' in text)
