"""Given tokens of ours and of others, when they are verified, then ours hold for their time and nothing else does."""

import base64
import json

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from models.accounts import Caller, Role
from models.errors import NotAuthenticated
from pipelines.accounts import tokens as module
from pipelines.accounts.tokens import ALGORITHM, LEEWAY, LIFETIME, Tokens

SECRET = b"a secret of the tests, long enough"
ALICE = Caller("user_alice", "acct_alice", Role.ADMIN, session_id="sess_alice")
NOW = 1_800_000_000


class Clock:
    """A clock that stands until it is moved."""

    now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tokens(clock):
    return Tokens(SECRET, clock=clock)


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
    return jwt.encode({"alg": ALGORITHM, "kid": tokens._signer.kid}, claims, tokens._signer, algorithms=[ALGORITHM])


def test_a_token_tells_who_holds_it(tokens):
    token = tokens.issue(ALICE)

    assert tokens.verify(token) == ALICE
    assert tokens.verify(token) == ALICE


def test_another_process_with_the_same_secret_agrees(tokens, clock):
    assert Tokens(SECRET, clock=clock).verify(tokens.issue(ALICE)) == ALICE


def test_another_secret_does_not(tokens, clock):
    with pytest.raises(NotAuthenticated):
        Tokens(b"another secret, also long enough", clock=clock).verify(tokens.issue(ALICE))


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_token_ends(tokens, clock, seen_before):
    token = tokens.issue(ALICE)
    if seen_before:
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
        {"exp": None},
        {"exp": "soon"},
        {"iat": NOW + 3600},
        {"nbf": NOW + 3600},
    ],
)
def test_every_claim_counts(tokens, changes):
    assert tokens.verify(signed(tokens)) == ALICE

    with pytest.raises(NotAuthenticated):
        tokens.verify(signed(tokens, **changes))


def test_other_algorithms_do_not_count(tokens):
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
def test_nonsense_is_refused(tokens, token):
    with pytest.raises(NotAuthenticated):
        tokens.verify(token)


def test_a_key_in_the_header_does_not_count(tokens):
    own = OKPKey.generate_key("Ed25519")
    header = {"alg": ALGORITHM, "jwk": own.as_dict(private=False)}

    with pytest.raises(NotAuthenticated):
        tokens.verify(jwt.encode(header, {"sub": "user_alice"}, own, algorithms=[ALGORITHM]))


def test_the_generation_before_still_holds_and_the_new_one_signs(tokens, clock):
    both = Tokens(SECRET, generations=(1, 2), clock=clock)

    assert both.verify(tokens.issue(ALICE)) == ALICE
    with pytest.raises(NotAuthenticated):
        tokens.verify(both.issue(ALICE))


def test_the_key_set_verifies_and_does_not_sign(tokens):
    (key,) = tokens.jwks()["keys"]

    decoded = jwt.decode(tokens.issue(ALICE), OKPKey.import_key(key), algorithms=[ALGORITHM])
    assert decoded.claims["sub"] == "user_alice"
    assert decoded.header["kid"] == key["kid"]
    assert "d" not in key


def test_what_is_remembered_is_bounded(tokens, clock, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 3)

    for _ in range(5):
        clock.now += 1
        tokens.verify(tokens.issue(ALICE))

    assert len(tokens._verified) == 3
