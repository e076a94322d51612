"""Issue and verify access tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037, named as in RFC 9864).

The signing keys are derived from the installation's secret and a generation number, so that a new generation can sign
while tokens of the previous one are still valid; `kid` begins with the number. The valid generations are stored in the
database and passed to `set_generations`. A token of another generation may be newer than this process knows: its key
can be derived, and if the signature is right, the caller should read the generations again (UnknownGeneration).

Verifying a signature takes some 80 µs and is needed for every request, so verified tokens are cached until they expire.
"""

import hashlib
import hmac
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import GuestProtocol, OKPKey

from models.accounts.accounts import Caller, Role
from models.platform.errors import NotAuthenticated

#: Seconds for which a token is valid.
LIFETIME = 900

#: Seconds that the clocks of two machines may differ.
LEEWAY = 5

ALGORITHM = "Ed25519"
ISSUER = AUDIENCE = "sangha"

#: Characters of a token; a longer one is rejected unread.
MAX_TOKEN_LENGTH = 2048

#: Verified tokens that are cached, about 500 bytes each.
CACHE_SIZE = 10_000

#: The generation that is valid until `set_generations` is called.
FIRST_GENERATION = 1

#: `7-nzb4…`: the generation and the first characters of the key's thumbprint (RFC 7638).
KID = re.compile(r"([1-9][0-9]{0,5})-[A-Za-z0-9_-]{16}")

#: Derived keys that are cached; bounded, since an attacker may name many generations.
KEY_CACHE_SIZE = 64

#: Seconds after which the valid generations should be read again.
GENERATIONS_MAX_AGE = 60.0


class UnknownGeneration(NotAuthenticated):
    """The token is signed by a generation that this process does not know as valid."""


class AccessTokens:
    """Issues and verifies access tokens. Safe to use from any thread."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._key = lru_cache(KEY_CACHE_SIZE)(partial(_derive, secret))
        self._successor_key = HKDF(SHA256(), length=32, salt=None, info=b"sangha refresh token").derive(secret)
        self._generations: tuple[int, ...] = (FIRST_GENERATION,)
        self._generations_read_at = 0.0
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
        """Whether the valid generations should be read again."""
        return self._clock() - self._generations_read_at > GENERATIONS_MAX_AGE

    def set_generations(self, generations: Sequence[int]) -> None:
        """Set the valid generations; the last one signs."""
        self._generations = tuple(generations) or (FIRST_GENERATION,)
        self._generations_read_at = self._clock()

    def issue(self, caller: Caller) -> str:
        """Return a token that is valid for LIFETIME seconds."""
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
        signing_key = self._key(self._generations[-1])
        header = {"alg": ALGORITHM, "kid": signing_key.kid}
        return jwt.encode(header, claims, signing_key, algorithms=[ALGORITHM])

    def derive_successor(self, refresh_token: str) -> str:
        """Derive the text of the refresh token that follows this one, 43 characters that only this secret yields."""
        token = refresh_token.encode("utf-8", "surrogateescape")
        return urlsafe_b64encode(hmac.digest(self._successor_key, token, "sha256")).decode().rstrip("=")

    def verify(self, token: str) -> Caller:
        """Return the caller of a token.

        Raises NotAuthenticated, with the code `token_expired` for an expired one, and UnknownGeneration if the valid
        generations should be read again.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise NotAuthenticated("The access token is invalid.")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        verified = self._read_cache(digest) or self._decode(token)
        if verified.generation not in self._generations:
            raise UnknownGeneration("The key that signed this access token is no longer valid. Log in again.")
        self._write_cache(digest, verified)
        return verified.caller

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517)."""
        keys = [self._key(generation) for generation in self._generations]
        return {"keys": [{**key.as_dict(private=False), "alg": ALGORITHM, "use": "sig"} for key in keys]}

    def _decode(self, token: str) -> "Verified":
        try:
            decoded = jwt.decode(token, self._find_key, algorithms=[ALGORITHM])
            self._claims.validate(decoded.claims)
            _check_types(decoded.claims)
        except ExpiredTokenError:
            raise NotAuthenticated("The access token has expired. Log in again.", code="token_expired") from None
        except (JoseError, ValueError):
            raise NotAuthenticated("The access token is invalid.") from None
        claims = decoded.claims
        caller = Caller(claims["sub"], claims["account"], Role(claims["role"]), session_id=claims["sid"])
        return Verified(_generation(decoded.header), claims["exp"] + LEEWAY, caller)

    def _find_key(self, signed: GuestProtocol) -> OKPKey:
        """Return the key that the header names by `kid`; its other fields about keys are ignored."""
        header = signed.headers()
        key = self._key(_generation(header))
        if key.kid != header["kid"]:
            raise ValueError("the kid names no key of this installation")
        return key

    def _read_cache(self, digest: bytes) -> "Verified | None":
        with self._lock:
            entry = self._verified.get(digest)
            if entry is not None and entry.until <= self._clock():
                del self._verified[digest]
                return None
            return entry

    def _write_cache(self, digest: bytes, verified: "Verified") -> None:
        with self._lock:
            self._verified[digest] = verified
            self._verified.move_to_end(digest)
            if len(self._verified) > CACHE_SIZE:
                self._verified.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified token; `until` is the Unix time at which it expires."""

    generation: int
    until: float
    caller: Caller


def _generation(header: Mapping[str, Any]) -> int:
    match = KID.fullmatch(str(header.get("kid")))
    if match is None:
        raise ValueError("the kid is missing or malformed")
    return int(match[1])


def _check_types(claims: dict[str, Any]) -> None:
    """Raise ValueError unless the claims that identify the caller are strings, which the registry does not check."""
    if not all(isinstance(claims[name], str) for name in ("sub", "account", "sid", "role")):
        raise ValueError("sub, account, sid and role must be strings")


def _derive(secret: bytes, generation: int) -> OKPKey:
    info = b"sangha access token, generation %d" % generation
    key = OKPKey.derive_key(secret, "Ed25519", kdf_options={"info": info})
    private = key.as_dict(private=True) | {"kid": f"{generation}-{key.thumbprint()[:16]}"}
    return OKPKey.import_key(private)
