"""Access tokens: short JWTs (RFC 7519) signed with Ed25519 (RFC 8037, named as in RFC 9864).

The signing keys are derived from the installation's secret with a generation number, so that a new generation can sign
while tokens of the one before still hold; `kid` tells which. Verifying a signature takes some 80 µs and comes with
every request, so what was verified is remembered until it expires.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import KeySet, OKPKey

from models.accounts import Caller, Role
from models.errors import NotAuthenticated

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

#: Which generations of keys hold; the last one signs.
GENERATIONS = (1,)


class Tokens:
    """Issues and verifies access tokens. Safe to use from any thread."""

    def __init__(
        self, secret: bytes, *, generations: Sequence[int] = GENERATIONS, clock: Callable[[], float] = time.time
    ) -> None:
        keys = [_derive(secret, generation) for generation in generations]
        self._signer = keys[-1]
        self._keys = KeySet(list(keys))
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
        self._verified: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._lock = threading.Lock()

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
        header = {"alg": ALGORITHM, "kid": self._signer.kid}
        return jwt.encode(header, claims, self._signer, algorithms=[ALGORITHM])

    def verify(self, token: str) -> Caller:
        """Who holds the token. Raises NotAuthenticated, with the code `token_expired` when its time is over."""
        if len(token) > LONGEST:
            raise NotAuthenticated("The token is not one of ours.")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._recall(digest)
        if known is not None:
            return known
        claims = self._decode(token)
        caller = Caller(claims["sub"], claims["account"], Role(claims["role"]), session_id=claims["sid"])
        self._remember(digest, claims["exp"] + LEEWAY, caller)
        return caller

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JSON Web Key Set (RFC 7517)."""
        public = [{**key.as_dict(private=False), "alg": ALGORITHM, "use": "sig"} for key in self._keys.keys]
        return {"keys": public}

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[ALGORITHM])
            self._claims.validate(decoded.claims)
            _check_names(decoded.claims)
        except ExpiredTokenError:
            raise NotAuthenticated("The token has expired. Log in again.", code="token_expired") from None
        except (JoseError, ValueError):
            raise NotAuthenticated("The token is not one of ours.") from None
        return decoded.claims

    def _recall(self, digest: bytes) -> Caller | None:
        with self._lock:
            known = self._verified.get(digest)
            if known is None:
                return None
            if known[0] <= self._clock():
                del self._verified[digest]
                return None
            self._verified.move_to_end(digest)
            return known[1]

    def _remember(self, digest: bytes, until: float, caller: Caller) -> None:
        with self._lock:
            self._verified[digest] = (until, caller)
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)


def _check_names(claims: dict[str, Any]) -> None:
    """The registry looks at no claim's type. Raises ValueError unless those that name somebody are texts."""
    if not all(isinstance(claims[name], str) for name in ("sub", "account", "sid")):
        raise ValueError("sub, account and sid are texts")


def _derive(secret: bytes, generation: int) -> OKPKey:
    info = b"sangha access token, generation %d" % generation
    return OKPKey.derive_key(secret, "Ed25519", kdf_options={"info": info}, auto_kid=True)
