"""Logging in by the word of an OIDC provider: whom it means here, and a session for them.

A provider's word for an address counts if it says that it has verified it, and it reaches only a user who has proved
the address here too. Whoever merely claimed the address before may have done so to wait for its owner: such a user is
never linked, and the new one takes the address over.
"""

import secrets
from dataclasses import dataclass

import orjson
import redis

from models.accounts import accounts, audit, emails, identities
from models.accounts.audit import RequestOrigin
from models.accounts.identities import Identity
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest, NotAllowed, NotAuthenticated
from models.platform.secrets import hash_secret
from pipelines.accounts import email_jobs, sessions
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import normalize_email
from pipelines.accounts.tokens import Tokens

#: Seconds from a provider's answer to the exchange of the code, which the page does at once.
EXCHANGE_SECONDS = 60

#: Characters that a subject has at most (OpenID Connect Core 1.0, section 2).
LONGEST_SUBJECT = 255

#: Characters of a name that are taken over.
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Claims:
    """What a provider says of somebody, its signature checked."""

    identity: Identity
    email: str
    email_verified: bool
    name: str = ""


def resolve_user(database: Database, claims: Claims, origin: RequestOrigin) -> str:
    """The id of the user whom the provider means, who is new if nobody is known. Letters may have been posted.

    Raises NotAllowed `email_missing` where a new user would have no address.
    """
    if not 0 < len(claims.identity.subject) <= LONGEST_SUBJECT or not claims.identity.subject.isprintable():
        raise NotAllowed("The provider does not say who you are.", code="subject_missing")
    email = _address(claims)
    with database.transaction() as connection:
        identities.lock(connection, claims.identity)
        known = identities.find_user(connection, claims.identity)
        if known is None:
            return _tie(connection, claims, email, origin)
        if email and claims.email_verified:
            emails.verify(connection, known, email)  # where it is the address that they claim
        return known


def _address(claims: Claims) -> str:
    """The address as it is stored, or an empty text."""
    try:
        return normalize_email(claims.email)
    except InvalidRequest:
        return ""


def _tie(connection: Connection, claims: Claims, email: str, origin: RequestOrigin) -> str:
    if not email:
        raise NotAllowed("The provider tells no e-mail address of yours.", code="email_missing")
    emails.lock(connection, email)
    holder = emails.find_owner(connection, email)
    if holder is not None and claims.email_verified:
        user_id = holder.id
    else:
        user_id = _create(connection, claims, email, holder.id if holder else None, origin)
    identities.link(connection, claims.identity, user_id, email)
    _record_link(connection, claims.identity, user_id, origin)
    return user_id


def _record_link(connection: Connection, identity: Identity, user_id: str, origin: RequestOrigin) -> None:
    """In the log of the user's oldest account."""
    belongs = accounts.memberships(connection, user_id)
    account_id = belongs[0].account_id if belongs else None
    details = {"provider": identity.provider}
    audit.record(
        connection, "identity.linked", origin, account_id=account_id, user_id=user_id, target=user_id, details=details
    )


def _create(connection: Connection, claims: Claims, email: str, holder_id: str | None, origin: RequestOrigin) -> str:
    """A new user: who holds the address by the provider's word, or else claims it, as by signing up."""
    membership = accounts.create(connection, email=email, password_hash=None)
    user_id, account_id = membership.user_id, membership.account_id
    name = "".join(letter for letter in claims.name if letter.isprintable())[:LONGEST_NAME]
    emails.rename(connection, user_id, name)
    if claims.email_verified:
        emails.verify(connection, user_id, email)
    else:
        letter = EmailTemplate.SIGNUP_ATTEMPTED if holder_id else EmailTemplate.VERIFY_ADDRESS
        email_jobs.enqueue_email(connection, letter, user_id=holder_id or user_id)
    audit.record(connection, "user.created", origin, account_id=account_id, user_id=user_id, target=user_id)
    return user_id


@dataclass(frozen=True, slots=True)
class LoginCode:
    """What gives a session, once: `code` goes to the page in its address, `binding` into a cookie of the browser.

    Neither is good without the other: an address may be seen or sent by others, and no other site can use the cookie.
    """

    code: str
    binding: str


def issue_login_code(client: redis.Redis, user_id: str) -> LoginCode:
    """A pass for a user, good for EXCHANGE_SECONDS. Only hashes are kept of it."""
    made = LoginCode(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    kept = {"user": user_id, "binding": hash_secret(made.binding).hex()}
    client.set(_key(made.code), orjson.dumps(kept), ex=EXCHANGE_SECONDS)
    return made


def exchange_login_code(
    database: Database, client: redis.Redis, tokens: Tokens, shown: LoginCode, origin: RequestOrigin
) -> SessionTokens:
    """A session for a pass; whatever comes of it, the pass is spent. Raises NotAuthenticated `invalid_code`."""
    kept = client.getdel(_key(shown.code))
    known = orjson.loads(kept) if isinstance(kept, bytes) else None
    if known is None or not secrets.compare_digest(known["binding"], hash_secret(shown.binding).hex()):
        raise _spent()
    with database.transaction() as connection:
        user = accounts.find(connection, known["user"])
        if user is None:
            raise _spent()
        membership = sessions.choose_membership(accounts.memberships(connection, user.id), None)
        return sessions.start(connection, tokens, membership, user.email, origin)


def _key(code: str) -> str:
    return f"sangha:oidc:pass:{hash_secret(code).hex()}"


def _spent() -> NotAuthenticated:
    return NotAuthenticated("The code holds no more: log in again.", code="invalid_code")
