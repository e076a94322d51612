"""The gate: who comes in, with what right, and how much they may have."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.datastructures import Headers

from models import api_keys, credentials
from models.accounts import Caller
from models.credentials import Standing
from models.database import Database
from models.errors import InvalidRequest, NotAuthenticated
from models.plans import Limits
from pipelines.accounts import keys
from pipelines.accounts.tokens import Tokens
from web.rights import Rights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Knock:
    """A request as far as the gate looks at it."""

    headers: Headers
    ip: str
    rights: Rights
    cost: int


@dataclass(frozen=True, slots=True)
class Admission:
    """Who came in, what their account may use, and what the answer's headers say about it."""

    identity: Caller | None = None
    limits: Limits = field(default_factory=Limits)
    headers: Mapping[str, str] = field(default_factory=dict)


class Gate(Protocol):
    """Blocks for a few milliseconds: it is asked in the thread pool."""

    def admit(self, knock: Knock) -> Admission:
        """Let somebody in. Raises NotAuthenticated, NotAllowed, TooMany and Unavailable."""


class Gatekeeper:
    """The gate of a real house."""

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens

    def admit(self, knock: Knock) -> Admission:
        """See Gate."""
        if knock.rights.public:
            return Admission()
        standing = self._identify(knock)
        knock.rights.check(standing.caller)
        return Admission(standing.caller, standing.limits)

    def _identify(self, knock: Knock) -> Standing:
        secret = bearer(knock.headers)
        standing = self._key(secret, knock.ip) if secret.startswith(keys.PREFIX) else self._session(secret)
        if standing is None:
            raise NotAuthenticated("This key or token holds no more.")
        return standing

    def _key(self, secret: str, ip: str) -> Standing | None:
        if not keys.well_formed(secret):
            raise NotAuthenticated("This is no API key of ours: it was mistyped or cut off.")
        with self._database.connection() as connection:
            standing = credentials.of_key(connection, secret)
            ended = api_keys.by_hash(connection, credentials.digest(secret)) if standing is None else None
        if ended is not None:
            log.info("the API key %s is %s and was shown again, from %s", ended.id, ended.status, ip)
        return standing

    def _session(self, token: str) -> Standing | None:
        shown = self._tokens.verify(token)
        with self._database.connection() as connection:
            return credentials.of_session(
                connection, session_id=shown.session_id or "", user_id=shown.user_id, account_id=shown.account_id
            )


def bearer(headers: Headers) -> str:
    """What `Authorization: Bearer …` shows. Raises NotAuthenticated, and InvalidRequest for two of them."""
    if len(headers.getlist("authorization")) > 1:
        # A proxy before us may have looked at the other one.
        raise InvalidRequest("Send one Authorization header.", code="repeated_header")
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise NotAuthenticated("Send an API key or a token: `Authorization: Bearer …`. POST /login gives a token.")
    return secret.strip()
