"""Authenticate a request, check its rights, and draw it from the caller's rate limits."""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Protocol

from starlette.datastructures import Headers

from models.access import api_keys, auth_context, signing_keys
from models.access.api_keys import KeyStatus
from models.access.auth_context import AuthContext, Credential
from models.accounts.accounts import Caller, Scope
from models.accounts.plans import Limits
from models.platform import secrets
from models.platform.database import Database
from models.platform.errors import InvalidRequest, NotAuthenticated
from models.platform.monitoring import admits
from pipelines.accounts import keys
from pipelines.accounts.access_tokens import AccessTokens, UnknownGeneration
from web.access.rate_limits import Limiter, body_tokens, estimate_tokens
from web.access.rights import Rights
from web.http.errors import RateLimited

log = logging.getLogger(__name__)

#: Why an API key is rejected, by its status. An active one is rejected when its user has left the account.
INVALID_KEY: dict[KeyStatus, str] = {
    "revoked": "This API key has been revoked.",
    "expired": "This API key has expired.",
    "active": "This API key is no longer valid: its user is no longer a member of the account.",
}


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """The parts of a request that decide whether it is admitted.

    cost   requests that it counts as against rate limits
    reads  it changes nothing, so it is admitted also while the rate limiter cannot be reached
    purpose  names the limit of a public request; reads without one are not limited
    """

    headers: Headers
    ip: str
    rights: Rights
    cost: int
    reads: bool = False
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request.

    identity          the caller; None on a public route
    headers           rate limit headers for the response
    estimated_tokens  tokens drawn from the limit per minute, corrected when the turn ends
    billed            whether the account's usage is billed
    """

    identity: Caller | None = None
    limits: Limits = field(default_factory=Limits)
    headers: Mapping[str, str] = field(default_factory=dict)
    estimated_tokens: int = 0
    billed: bool = False


class Gate(Protocol):
    """Decides about requests. Blocks for a few milliseconds, so it is called in the thread pool."""

    def admit(self, request: AuthRequest) -> Admission:
        """Admit a request. Raises NotAuthenticated, NotAllowed, LimitExceeded and Unavailable."""

    def draw_body(self, admission: Admission, size: int) -> Admission:
        """Draw the tokens of a body whose length was not declared. Raises LimitExceeded and Unavailable."""

    def draw_answer(self, admission: Admission, tokens: int) -> Admission:
        """Draw the most tokens that an answer may have. Raises LimitExceeded, with nothing drawn, and Unavailable."""

    def give_back(self, admission: Admission) -> None:
        """Return the tokens of a request that starts no turn."""

    def find_ended(self, credentials: Sequence[Credential]) -> Collection[Credential]:
        """Return the credentials that are no longer valid. Raises Unavailable."""


class DatabaseGate:
    """Checks API keys and sessions in Postgres, and rate limits in Redis."""

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        limiter: Limiter,
        *,
        trusts_loopback: bool = False,
        metrics_token: str | None = None,
    ) -> None:
        """Create a gate.

        trusts_loopback  a connection from this machine is no proxy's
        metrics_token    what requests for metrics need, instead of coming from this machine
        """
        self._database = database
        self._tokens = tokens
        self._limiter = limiter
        self._trusts_loopback = trusts_loopback
        self._metrics_token = metrics_token

    def admit(self, request: AuthRequest) -> Admission:
        """See Gate."""
        if request.rights.public:
            lenient = request.reads or not request.cost
            if request.purpose or not lenient:
                self._limiter.draw_for_address(request.ip, request.purpose, lenient=lenient)
            return Admission()
        if request.rights.local and self._admits_scraper(request):
            return Admission()
        context = self._authenticate(request)
        # Before the rights: a forbidden request has cost a look-up, so it counts too.
        admission = self._draw(context, request)
        request.rights.check(context.caller)
        return admission

    def _admits_scraper(self, request: AuthRequest) -> bool:
        """Return whether a request has the metrics token, or, where there is none, is from this machine."""
        if self._metrics_token is not None:
            return admits(self._metrics_token, request.headers.get("authorization", ""))
        return self._trusts_loopback and is_local(request)

    def draw_body(self, admission: Admission, size: int) -> Admission:
        """See Gate."""
        if admission.identity is None or admission.limits.tokens_per_minute is None:
            return admission
        tokens = body_tokens(size)
        # No more than the bucket holds: it would never have that much, as after the whole body was declared.
        missing = min(tokens, admission.limits.tokens_per_minute) - admission.estimated_tokens
        headers = self._limiter.draw_tokens(admission.identity, admission.limits.tokens_per_minute, max(missing, 0))
        return replace(admission, headers={**admission.headers, **headers}, estimated_tokens=tokens)

    def draw_answer(self, admission: Admission, tokens: int) -> Admission:
        """See Gate."""
        limit = admission.limits.tokens_per_minute
        if admission.identity is None or limit is None or not tokens:
            return admission
        drawn = min(admission.estimated_tokens, limit)
        total = min(drawn + tokens, limit)  # the bucket never has more
        try:
            headers = self._limiter.draw_tokens(admission.identity, limit, total - drawn)
        except RateLimited:
            self.give_back(admission)  # otherwise retries would keep the bucket from filling
            raise
        return replace(admission, headers=headers, estimated_tokens=total)

    def give_back(self, admission: Admission) -> None:
        """See Gate."""
        limit = admission.limits.tokens_per_minute
        if admission.identity is not None and limit is not None:
            tokens = min(admission.estimated_tokens, limit)
            self._limiter.give_back_tokens(admission.identity, limit, tokens)

    def find_ended(self, credentials: Sequence[Credential]) -> Collection[Credential]:
        """See Gate."""
        with self._database.connection() as connection:
            return auth_context.find_ended(connection, credentials)

    def _draw(self, context: AuthContext, request: AuthRequest) -> Admission:
        if not request.cost:
            return Admission(context.caller, context.limits, billed=context.billed)
        inference = request.rights.scope is Scope.INFERENCE
        tokens = estimate_tokens(request.headers.get("content-length")) if inference else 0
        headers = self._limiter.draw_for_caller(
            context.caller, context.limits, cost=request.cost, tokens=tokens, reads=request.reads
        )
        return Admission(context.caller, context.limits, headers, tokens, context.billed)

    def _authenticate(self, request: AuthRequest) -> AuthContext:
        credential = bearer_credential(request.headers)
        try:
            return self._resolve(credential, request.ip)
        except NotAuthenticated:
            self._limiter.count_failure(request.ip)
            raise

    def _resolve(self, credential: str, ip: str) -> AuthContext:
        """Resolve an API key or access token to its caller."""
        return (
            self._resolve_key(credential, ip) if credential.startswith(keys.PREFIX) else self._resolve_token(credential)
        )

    def _resolve_key(self, secret: str, ip: str) -> AuthContext:
        if not keys.is_well_formed(secret):
            raise NotAuthenticated("This API key is malformed: it was mistyped or truncated.")
        with self._database.connection() as connection:
            context = auth_context.for_api_key(connection, secret)
            key = api_keys.find_by_hash(connection, secrets.hash_secret(secret)) if context is None else None
        if context is not None:
            return context
        if key is None:
            raise NotAuthenticated("This API key does not exist.")
        log.info("Rejected API key %s from %s: it is %s", key.id, ip, key.status)
        raise NotAuthenticated(INVALID_KEY[key.status])

    def _resolve_token(self, token: str) -> AuthContext:
        claims = self._verify(token)
        with self._database.connection() as connection:
            context = auth_context.for_session(
                connection, session_id=claims.session_id or "", user_id=claims.user_id, account_id=claims.account_id
            )
        if context is None:
            raise NotAuthenticated("This access token is no longer valid: its session has ended. Log in again.")
        return context

    def _verify(self, token: str) -> Caller:
        """Verify a token's signature, after loading the signing keys anew if another process has rotated them."""
        if not self._tokens.generations_stale:
            with suppress(UnknownGeneration):
                return self._tokens.verify(token)
        with self._database.connection() as connection:
            self._tokens.set_generations(signing_keys.valid_generations(connection))
        return self._tokens.verify(token)


#: Headers that proxies add.
PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def is_local(request: AuthRequest) -> bool:
    """Return whether a request comes from this machine and no proxy has marked it."""
    try:
        loopback = ip_address(request.ip).is_loopback
    except ValueError:
        return False
    return loopback and not any(name in request.headers for name in PROXY_HEADERS)


def bearer_credential(headers: Headers) -> str:
    """Return the credential of `Authorization: Bearer …`.

    Raises NotAuthenticated when there is none, and InvalidRequest for two Authorization headers.
    """
    if len(headers.getlist("authorization")) > 1:
        # A proxy in front of us may have checked the other one.
        raise InvalidRequest("Send exactly one Authorization header.", code="repeated_header")
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise NotAuthenticated(
            "Send an API key or an access token as `Authorization: Bearer …`. POST /login returns an access token."
        )
    return credential.strip()
