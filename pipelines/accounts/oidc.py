"""Log in with an OIDC provider: map its claims to a user, and start a session.

An address counts as verified if the provider says that it has verified it, and an identity is linked only to a user who
has verified the address here, too. A user who signed up with the address without verifying it may be an attacker who
waits for its owner: such a user is never linked, and the new user gets the address.
"""

import secrets
from dataclasses import dataclass

import orjson
import redis

from models.accounts import accounts, audit, emails, identities, invitations, members
from models.accounts.audit import RequestOrigin
from models.accounts.identities import Identity
from models.accounts.invitations import Invitation
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest, NotAllowed, NotAuthenticated
from models.platform.secrets import hash_secret
from pipelines.accounts import email_jobs, new_account, sessions
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.invitations import join
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import normalize_email
from pipelines.accounts.signup_policy import OPEN, SignupPolicy

#: Seconds for which a login code is valid; the page exchanges it at once.
EXCHANGE_SECONDS = 60

#: Characters of a subject (OpenID Connect Core 1.0, section 2).
MAX_SUBJECT_LENGTH = 255

#: Characters that are kept of a name.
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Claims:
    """The verified claims of a provider's ID token."""

    identity: Identity
    email: str
    email_verified: bool
    name: str = ""


def resolve_user(database: Database, claims: Claims, origin: RequestOrigin, policy: SignupPolicy = OPEN) -> str:
    """Return the id of the user with this identity; creates or links them if needed. May enqueue an e-mail.

    Raises NotAllowed `subject_missing`, for a new user without an address `email_missing`, and for one whom the policy
    does not admit its codes.
    """
    if not 0 < len(claims.identity.subject) <= MAX_SUBJECT_LENGTH or not claims.identity.subject.isprintable():
        raise NotAllowed("The provider sent no valid user id (the claim 'sub').", code="subject_missing")
    email = _normalized_email(claims)
    with database.transaction() as connection:
        identities.lock(connection, claims.identity)
        user_id = identities.find_user(connection, claims.identity)
        if user_id is None:
            return _link(connection, claims, email, origin, policy)
        if email and claims.email_verified:
            emails.verify(connection, user_id, email)  # has an effect only on the user's own address
        return user_id


def _normalized_email(claims: Claims) -> str:
    """Return the address as it is stored; empty if there is none or it is malformed."""
    try:
        return normalize_email(claims.email)
    except InvalidRequest:
        return ""


def _link(connection: Connection, claims: Claims, email: str, origin: RequestOrigin, policy: SignupPolicy) -> str:
    if not email:
        message = "The provider sent no e-mail address. Allow it to share your address, or sign up with a password."
        raise NotAllowed(message, code="email_missing")
    invitation = _lock_invitation(connection, claims, email, policy)
    emails.lock(connection, email)
    owner = emails.find_owner(connection, email)
    if owner is not None and claims.email_verified:
        user_id = owner.id
    elif invitation is not None:
        user_id = _create_invited_user(connection, claims, email, invitation, origin)
    else:
        policy.check_signup(email)
        user_id = _create_user(connection, claims, email, owner.id if owner else None, origin)
    identities.link(connection, claims.identity, user_id, email)
    _record_link(connection, claims.identity, user_id, origin)
    return user_id


def _lock_invitation(connection: Connection, claims: Claims, email: str, policy: SignupPolicy) -> Invitation | None:
    """Return the invitation that a new user needs, with its account locked; None without a need or an invitation.

    An address that the provider has verified proves as much as the secret that the invitation sends to it.
    """
    if not claims.email_verified or not policy.needs_invitation(email):
        return None
    unlocked = invitations.find_by_address(connection, email)
    # As in `invitations.accept`, the account is locked before the address, and the invitation may have changed.
    if unlocked is None or not members.lock_account(connection, unlocked.account_id):
        return None
    invitation = invitations.find_by_address(connection, email)
    return invitation if invitation is not None and invitation.account_id == unlocked.account_id else None


def _create_invited_user(
    connection: Connection, claims: Claims, email: str, invitation: Invitation, origin: RequestOrigin
) -> str:
    """Create a user without an account of their own, and add them to the inviting one."""
    user = emails.create_verified_user(connection, email, name=_printable_name(claims), password_hash=None)
    assert user is not None, "the address is locked and has no owner"
    join(connection, invitation, user, origin)
    return user.id


def _printable_name(claims: Claims) -> str:
    return "".join(character for character in claims.name if character.isprintable())[:MAX_NAME_LENGTH]


def _record_link(connection: Connection, identity: Identity, user_id: str, origin: RequestOrigin) -> None:
    """Record the link in the audit log of the user's oldest account."""
    memberships = accounts.memberships(connection, user_id)
    account_id = memberships[0].account_id if memberships else None
    details = {"provider": identity.provider}
    audit.record(
        connection, "identity.linked", origin, account_id=account_id, user_id=user_id, target=user_id, details=details
    )


def _create_user(
    connection: Connection, claims: Claims, email: str, owner_id: str | None, origin: RequestOrigin
) -> str:
    """Create a user: with a verified address if the provider verified it, otherwise as if they had signed up."""
    plan_id = accounts.DEFAULT_PLAN if claims.email_verified else accounts.UNVERIFIED_PLAN
    membership = new_account.create(connection, email=email, password_hash=None, plan_id=plan_id)
    user_id, account_id = membership.user_id, membership.account_id
    emails.rename(connection, user_id, _printable_name(claims))
    if claims.email_verified:
        emails.verify(connection, user_id, email)
    else:
        template = EmailTemplate.SIGNUP_ATTEMPTED if owner_id else EmailTemplate.VERIFY_ADDRESS
        email_jobs.enqueue_email(connection, template, user_id=owner_id or user_id, at_most_every=60)
    audit.record(connection, "user.created", origin, account_id=account_id, user_id=user_id, target=user_id)
    return user_id


@dataclass(frozen=True, slots=True)
class LoginCode:
    """A pair of secrets that is exchanged once for a session: `code` is in the page's URL, `binding` in a cookie.

    Neither works without the other: a URL may be seen or sent by others, and other sites cannot use the cookie.
    """

    code: str
    binding: str


def issue_login_code(client: redis.Redis, user_id: str) -> LoginCode:
    """Create a login code that is valid for EXCHANGE_SECONDS. Only its hashes are stored."""
    login_code = LoginCode(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    stored = {"user": user_id, "binding": hash_secret(login_code.binding).hex()}
    client.set(_key(login_code.code), orjson.dumps(stored), ex=EXCHANGE_SECONDS)
    return login_code


def exchange_login_code(
    database: Database, client: redis.Redis, tokens: AccessTokens, login_code: LoginCode, origin: RequestOrigin
) -> SessionTokens:
    """Start a session for a login code, which is used up in any case. Raises NotAuthenticated `invalid_code`."""
    value = client.getdel(_key(login_code.code))
    stored = orjson.loads(value) if isinstance(value, bytes) else None
    if stored is None or not secrets.compare_digest(stored["binding"], hash_secret(login_code.binding).hex()):
        raise _invalid_code()
    with database.transaction() as connection:
        user = accounts.find(connection, stored["user"])
        if user is None:
            raise _invalid_code()
        membership = sessions.choose_membership(accounts.memberships(connection, user.id), None)
        return sessions.start(connection, tokens, membership, user.email, origin)


def _key(code: str) -> str:
    return f"sangha:oidc:pass:{hash_secret(code).hex()}"


def _invalid_code() -> NotAuthenticated:
    return NotAuthenticated("The login code is invalid, used or expired. Log in again.", code="invalid_code")
