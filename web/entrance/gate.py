"""The gate: who comes in, with what right, and how much they may have."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from starlette.datastructures import Headers

from models.access import api_keys, auth_context, signing_keys
from models.access.auth_context import Standing
from models.accounts.accounts import Caller, Scope
from models.accounts.plans import Limits
from models.platform import secrets
from models.platform.database import Database
from models.platform.errors import InvalidRequest, NotAuthenticated
from pipelines.accounts import keys
from pipelines.accounts.tokens import Tokens, UnknownGeneration
from web.entrance.limits import Limiter, estimate
from web.entrance.rights import Rights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Knock:
    """A request as far as the gate looks at it."""

    headers: Headers
    ip: str
    rights: Rights
    cost: int
    reads: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Who came in, what their account may use, and what the answer's headers say about it.

    charged  tokens a minute that were drawn for it, by estimate
    """

    identity: Caller | None = None
    limits: Limits = field(default_factory=Limits)
    headers: Mapping[str, str] = field(default_factory=dict)
    charged: int = 0


class Gate(Protocol):
    """Blocks for a few milliseconds: it is asked in the thread pool."""

    def admit(self, knock: Knock) -> Admission:
        """Let somebody in. Raises NotAuthenticated, NotAllowed, TooMany and Unavailable."""


class Gatekeeper:
    """The gate of a real house."""

    def __init__(self, database: Database, tokens: Tokens, limiter: Limiter) -> None:
        self._database = database
        self._tokens = tokens
        self._limiter = limiter

    def admit(self, knock: Knock) -> Admission:
        """See Gate."""
        if knock.rights.public:
            if knock.cost and not knock.reads:
                self._limiter.visitor(knock.ip)
            return Admission()
        standing = self._identify(knock)
        # What is forbidden counts too: it has cost us a look.
        admission = self._limited(standing, knock)
        knock.rights.check(standing.caller)
        return admission

    def _limited(self, standing: Standing, knock: Knock) -> Admission:
        if not knock.cost:
            return Admission(standing.caller, standing.limits)
        tokens = estimate(knock.headers.get("content-length")) if knock.rights.scope is Scope.INFERENCE else 0
        headers = self._limiter.caller(
            standing.caller, standing.limits, cost=knock.cost, tokens=tokens, reads=knock.reads
        )
        return Admission(standing.caller, standing.limits, headers, tokens)

    def _identify(self, knock: Knock) -> Standing:
        secret = bearer(knock.headers)
        try:
            return self._stands_behind(secret, knock)
        except NotAuthenticated:
            self._limiter.failure(knock.ip)
            raise

    def _stands_behind(self, secret: str, knock: Knock) -> Standing:
        standing = self._key(secret, knock.ip) if secret.startswith(keys.PREFIX) else self._session(secret)
        if standing is None:
            raise NotAuthenticated("This key or token holds no more.")
        return standing

    def _key(self, secret: str, ip: str) -> Standing | None:
        if not keys.is_well_formed(secret):
            raise NotAuthenticated("This is no API key of ours: it was mistyped or cut off.")
        with self._database.connection() as connection:
            standing = auth_context.of_key(connection, secret)
            ended = api_keys.by_hash(connection, secrets.digest(secret)) if standing is None else None
        if ended is not None:
            log.info("the API key %s is %s and was shown again, from %s", ended.id, ended.status, ip)
        return standing

    def _session(self, token: str) -> Standing | None:
        shown = self._verified(token)
        with self._database.connection() as connection:
            return auth_context.of_session(
                connection, session_id=shown.session_id or "", user_id=shown.user_id, account_id=shown.account_id
            )

    def _verified(self, token: str) -> Caller:
        """What the token says. Other processes may have begun a new generation of keys: then we hear of it here."""
        if not self._tokens.generations_stale:
            with suppress(UnknownGeneration):
                return self._tokens.verify(token)
        with self._database.connection() as connection:
            self._tokens.set_generations(signing_keys.holding(connection))
        return self._tokens.verify(token)


def bearer(headers: Headers) -> str:
    """What `Authorization: Bearer …` shows. Raises NotAuthenticated, and InvalidRequest for two of them."""
    if len(headers.getlist("authorization")) > 1:
        # A proxy before us may have looked at the other one.
        raise InvalidRequest("Send one Authorization header.", code="repeated_header")
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise NotAuthenticated("Send an API key or a token: `Authorization: Bearer …`. POST /login gives a token.")
    return secret.strip()
