"""Given access tokens, then only those of this installation are valid, and only until they expire."""

import base64
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from models.accounts.accounts import Caller, Role
from models.platform.errors import NotAuthenticated
from pipelines.accounts import access_tokens as module
from pipelines.accounts.access_tokens import ALGORITHM, LEEWAY, LIFETIME, AccessTokens, UnknownGeneration

SECRET = b"a secret of the tests, long enough"
ALICE = Caller("user_alice", "acct_alice", Role.ADMIN, session_id="sess_alice")
NOW = 1_800_000_000


class Clock:
    """A clock that a test sets."""

    now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tokens(clock):
    return AccessTokens(SECRET, clock=clock)


def signed(tokens, **changes):
    claims = {
        "iss": "sangha",
        "aud": "sangha",
        "sub": "user_alice",
        "account": "acct_alice",
        "role": "admin",
        "sid": "sess_alice",
        "iat": NOW,
        "exp": NOW + 60,
    } | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": ALGORITHM, "kid": tokens._key(1).kid}, claims, tokens._key(1), algorithms=[ALGORITHM])


def private_key(tokens):
    d = tokens._key(1).as_dict(private=True)["d"]
    return Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(d + "=="))


def encode_token(header, claims, sign=lambda signed: b""):
    """Encode a token with any header; the library refuses invalid ones."""
    first = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)
    )
    return f"{first}.{base64.urlsafe_b64encode(sign(first.encode())).decode().rstrip('=')}"


def test_a_token_identifies_its_caller(tokens):
    token = tokens.issue(ALICE)

    assert tokens.verify(token) == ALICE
    assert tokens.verify(token) == ALICE


def test_a_process_with_the_same_secret_accepts_the_token(tokens, clock):
    assert AccessTokens(SECRET, clock=clock).verify(tokens.issue(ALICE)) == ALICE


def test_a_process_with_another_secret_rejects_the_token(tokens, clock):
    with pytest.raises(NotAuthenticated):
        AccessTokens(b"another secret, also long enough", clock=clock).verify(tokens.issue(ALICE))


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_expires(tokens, clock, cached):
    token = tokens.issue(ALICE)
    if cached:
        tokens.verify(token)

    clock.now += LIFETIME + LEEWAY

    with pytest.raises(NotAuthenticated) as caught:
        tokens.verify(token)
    assert caught.value.code == "token_expired"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": None},
        {"sub": None},
        {"sub": 5},
        {"account": None},
        {"account": 5},
        {"account": ["acct_alice"]},
        {"sub": {"id": "user_alice"}},
        {"role": None},
        {"role": "god"},
        {"role": ["admin"]},
        {"exp": None},
        {"exp": "soon"},
        {"iat": NOW + 3600},
        {"nbf": NOW + 3600},
    ],
)
def test_every_claim_is_checked(tokens, changes):
    assert tokens.verify(signed(tokens)) == ALICE

    with pytest.raises(NotAuthenticated):
        tokens.verify(signed(tokens, **changes))


def test_other_algorithms_are_rejected(tokens):
    header, payload, signature = tokens.issue(ALICE).split(".")
    public = tokens.jwks()["keys"][0]["x"]
    forged = jwt.encode({"alg": "HS256"}, {"sub": "user_alice"}, OctKey.import_key(public), algorithms=["HS256"])
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")

    for token in (forged, f"{none}.{payload}.", f"{none}.{payload}.{signature}", f"{header}.{payload}."):
        with pytest.raises(NotAuthenticated):
            tokens.verify(token)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "é", "\udcff", "x" * 10_000, "e30.e30.e30", "bnVsbA.bnVsbA.x"]
)
def test_a_malformed_token_is_rejected(tokens, token):
    with pytest.raises(NotAuthenticated):
        tokens.verify(token)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 1400,
        b'{"alg":"Ed25519","kid":' + b"[" * 1200 + b"]" * 1200 + b"}",
        b'{"alg":"Ed25519","kid":' + b"9" * 1300 + b"}",
        b'{"alg":"Ed25519","crit":["b64"],"b64":false}',
        b'{"alg":NaN}',
        b"\xff\xfe",
        b"5",
    ],
)
def test_a_malformed_header_is_rejected(tokens, header):
    first = base64.urlsafe_b64encode(header).decode().rstrip("=")

    for token in (f"{first}.e30.AAAA", f"{first}.AAAA.AAAA.AAAA.AAAA"):
        with pytest.raises(NotAuthenticated):
            tokens.verify(token)


def test_a_key_in_the_header_is_ignored(tokens):
    own = OKPKey.generate_key("Ed25519")
    header = {"alg": ALGORITHM, "jwk": own.as_dict(private=False)}

    with pytest.raises(NotAuthenticated):
        tokens.verify(jwt.encode(header, {"sub": "user_alice"}, own, algorithms=[ALGORITHM]))


@pytest.mark.parametrize("form", ["pem", "raw", "jwk", "x"])
def test_the_public_key_is_not_accepted_as_a_shared_secret(tokens, form):
    key = tokens._key(1)
    x = key.as_dict(private=False)["x"]
    public = {
        "pem": key.as_pem(private=False),
        "raw": base64.urlsafe_b64decode(x + "=="),
        "jwk": json.dumps(key.as_dict(private=False)).encode(),
        "x": x.encode(),
    }[form]
    claims = jwt.decode(tokens.issue(ALICE), key, algorithms=[ALGORITHM]).claims

    token = encode_token({"alg": "HS256", "kid": key.kid}, claims, lambda signed: hmac.digest(public, signed, "sha256"))

    with pytest.raises(NotAuthenticated):
        tokens.verify(token)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "EdDSA", "Ed448", "RS256", "", None, 5, ["Ed25519"]])
def test_a_right_signature_with_another_algorithm_name_is_rejected(tokens, algorithm):
    private = private_key(tokens)
    claims = jwt.decode(tokens.issue(ALICE), tokens._key(1), algorithms=[ALGORITHM]).claims
    header = {"alg": algorithm, "kid": tokens._key(1).kid}

    assert tokens.verify(encode_token(header | {"alg": ALGORITHM}, claims, private.sign)) == ALICE
    with pytest.raises(NotAuthenticated):
        tokens.verify(encode_token(header, claims, private.sign))


@pytest.mark.parametrize(
    "kid",
    [
        None,
        "",
        "1",
        "2",
        "1-",
        "1-AAAAAAAAAAAAAAAA",
        "0-AAAAAAAAAAAAAAAA",
        "9999999-AAAAAAAAAAAAAAAA",
        1,
        ["1"],
        "../1",
    ],
)
def test_an_unknown_kid_is_rejected(tokens, kid):
    private = private_key(tokens)
    claims = jwt.decode(tokens.issue(ALICE), tokens._key(1), algorithms=[ALGORITHM]).claims

    with pytest.raises(NotAuthenticated):
        tokens.verify(encode_token({"alg": ALGORITHM, "kid": kid}, claims, private.sign))


def test_the_previous_generation_stays_valid_and_the_new_one_signs(tokens, clock):
    old, both = tokens.issue(ALICE), AccessTokens(SECRET, clock=clock)
    both.set_generations([1, 2])

    assert both.verify(old) == ALICE
    assert both.issue(ALICE) != old


def test_an_unknown_generation_with_a_right_signature_is_reported_as_such(tokens, clock):
    other = AccessTokens(SECRET, clock=clock)
    other.set_generations([1, 2])
    token = other.issue(ALICE)

    with pytest.raises(UnknownGeneration):
        tokens.verify(token)
    tokens.set_generations([1, 2])
    assert tokens.verify(token) == ALICE


def test_an_unknown_generation_with_a_wrong_signature_is_an_invalid_token(tokens, clock):
    other = AccessTokens(b"another secret, also long enough", clock=clock)
    other.set_generations([2])

    with pytest.raises(NotAuthenticated) as caught:
        tokens.verify(other.issue(ALICE))
    assert not isinstance(caught.value, UnknownGeneration)


def test_a_cached_token_of_a_retired_generation_is_rejected(tokens):
    token = tokens.issue(ALICE)
    tokens.verify(token)

    tokens.set_generations([2, 3])

    with pytest.raises(NotAuthenticated):
        tokens.verify(token)


def test_the_key_set_verifies_and_does_not_sign(tokens):
    (key,) = tokens.jwks()["keys"]

    decoded = jwt.decode(tokens.issue(ALICE), OKPKey.import_key(key), algorithms=[ALGORITHM])
    assert decoded.claims["sub"] == "user_alice"
    assert decoded.header["kid"] == key["kid"]
    assert "d" not in key


def test_the_cache_of_verified_tokens_is_bounded(tokens, clock, monkeypatch):
    monkeypatch.setattr(module, "CACHE_SIZE", 3)

    for _ in range(5):
        clock.now += 1
        tokens.verify(tokens.issue(ALICE))

    assert len(tokens._verified) == 3
