"""Access tokens: short JWTs (RFC 7519) signed with Ed25519 (RFC 8037, named as in RFC 9864).

The signing keys are derived from the installation's secret with a generation number, so that a new generation can sign
while tokens of the one before still hold; `kid` begins with the number. Which generations hold stands in the database,
and `learn` is told. A token of a generation that this process has not heard of is a reason to ask: its key can be
derived all the same, and only with a right signature is it worth the question.

Verifying a signature takes some 80 µs and comes with every request, so what was verified is remembered until it ends.
"""

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import GuestProtocol, OKPKey

from models.accounts.accounts import Caller, Role
from models.platform.errors import NotAuthenticated

#: Seconds that a token holds.
LIFETIME = 900

#: Seconds that the clocks of two machines may differ.
LEEWAY = 5

ALGORITHM = "Ed25519"
ISSUER = AUDIENCE = "sangha"

#: No token of ours is longer; what is need not be looked at.
LONGEST = 2048

#: How many verified tokens are remembered, about 500 bytes each.
REMEMBERED = 10_000

#: The generation that signs and holds until the database has told.
FIRST = 1

#: `7-nzb4…`: the generation and the beginning of the key's thumbprint (RFC 7638).
KID = re.compile(r"([1-9][0-9]{0,5})-[A-Za-z0-9_-]{16}")

#: Derived keys that are kept, for an attacker may name many generations.
KEYS_KEPT = 64

#: Seconds after which it is time to ask which generations hold.
NEWS = 60.0


class UnknownGeneration(NotAuthenticated):
    """Signed by a key of ours that does not hold, as far as this process has heard."""


class Tokens:
    """Issues and verifies access tokens. Safe to use from any thread."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._key = lru_cache(KEYS_KEPT)(partial(_derive, secret))
        self._generations: tuple[int, ...] = (FIRST,)
        self._heard = 0.0
        self._clock = clock
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            account={"essential": True},
            sid={"essential": True},
            role={"essential": True, "values": [role.value for role in Role]},
        )
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def generations_stale(self) -> bool:
        """Whether it is time to ask which generations hold."""
        return self._clock() - self._heard > NEWS

    def set_generations(self, generations: Sequence[int]) -> None:
        """Take tokens of these generations from now on, and sign with the last one."""
        self._generations = tuple(generations) or (FIRST,)
        self._heard = self._clock()

    def issue(self, caller: Caller) -> str:
        """A token that holds for LIFETIME seconds."""
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": caller.user_id,
            "account": caller.account_id,
            "role": caller.role.value,
            "sid": caller.session_id,
            "iat": now,
            "exp": now + LIFETIME,
        }
        signer = self._key(self._generations[-1])
        header = {"alg": ALGORITHM, "kid": signer.kid}
        return jwt.encode(header, claims, signer, algorithms=[ALGORITHM])

    def verify(self, token: str) -> Caller:
        """Who holds the token.

        Raises NotAuthenticated, with the code `token_expired` when its time is over, and UnknownGeneration when it is
        worth asking which generations hold.
        """
        if len(token) > LONGEST:
            raise NotAuthenticated("The token is not one of ours.")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        verified = self._recall(digest) or self._decode(token)
        if verified.generation not in self._generations:
            raise UnknownGeneration("The key that signed this token does not hold any more. Log in again.")
        self._remember(digest, verified)
        return verified.caller

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JSON Web Key Set (RFC 7517)."""
        keys = [self._key(generation) for generation in self._generations]
        return {"keys": [{**key.as_dict(private=False), "alg": ALGORITHM, "use": "sig"} for key in keys]}

    def _decode(self, token: str) -> "Verified":
        try:
            decoded = jwt.decode(token, self._named, algorithms=[ALGORITHM])
            self._claims.validate(decoded.claims)
            _check_names(decoded.claims)
        except ExpiredTokenError:
            raise NotAuthenticated("The token has expired. Log in again.", code="token_expired") from None
        except (JoseError, ValueError):
            raise NotAuthenticated("The token is not one of ours.") from None
        claims = decoded.claims
        caller = Caller(claims["sub"], claims["account"], Role(claims["role"]), session_id=claims["sid"])
        return Verified(_generation(decoded.header), claims["exp"] + LEEWAY, caller)

    def _named(self, signed: GuestProtocol) -> OKPKey:
        """The key that the header names by its `kid`; nothing else that a header says of keys counts."""
        header = signed.headers()
        key = self._key(_generation(header))
        if key.kid != header["kid"]:
            raise ValueError("the kid is not one of ours")
        return key

    def _recall(self, digest: bytes) -> "Verified | None":
        with self._lock:
            known = self._verified.get(digest)
            if known is not None and known.until <= self._clock():
                del self._verified[digest]
                return None
            return known

    def _remember(self, digest: bytes, verified: "Verified") -> None:
        with self._lock:
            self._verified[digest] = verified
            self._verified.move_to_end(digest)
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token says, once its signature was right; `until` is the Unix time of its end."""

    generation: int
    until: float
    caller: Caller


def _generation(header: Mapping[str, Any]) -> int:
    named = KID.fullmatch(str(header.get("kid")))
    if named is None:
        raise ValueError("the header names no key")
    return int(named[1])


def _check_names(claims: dict[str, Any]) -> None:
    """The registry looks at no claim's type. Raises ValueError unless those that name somebody are texts."""
    if not all(isinstance(claims[name], str) for name in ("sub", "account", "sid", "role")):
        raise ValueError("sub, account, sid and role are texts")


def _derive(secret: bytes, generation: int) -> OKPKey:
    info = b"sangha access token, generation %d" % generation
    key = OKPKey.derive_key(secret, "Ed25519", kdf_options={"info": info})
    private = key.as_dict(private=True) | {"kid": f"{generation}-{key.thumbprint()[:16]}"}
    return OKPKey.import_key(private)
