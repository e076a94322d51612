"""Sessions: they begin with a login, go on with refresh tokens, and end with a logout or a theft that comes to light.

An access token holds for minutes. A refresh token is random, good once, and gives the next pair. A token that is shown
a second time ends its session: whoever holds the other copy is out as well. Only two who show one token at the same
moment are told apart from that: one gets the next pair, the other one nothing, and the session goes on.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from models.access import sessions, signing_keys
from models.access.sessions import RefreshToken
from models.accounts import accounts, audit
from models.accounts.accounts import Caller, Membership, User
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection, Database
from models.platform.errors import NotAllowed, NotAuthenticated
from pipelines.accounts import email_jobs, passwords
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter
from pipelines.accounts.tokens import LIFETIME, Tokens

#: What refresh tokens begin with, so that a leaked one is known for what it is.
PREFIX = "rt_"


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """What lets somebody in: an access token that holds `expires_in` seconds, and a refresh token for what follows."""

    caller: Caller
    email: str
    access_token: str
    refresh_token: str
    expires_in: int = LIFETIME


def start(
    connection: Connection, tokens: Tokens, membership: Membership, email: str, origin: RequestOrigin
) -> SessionTokens:
    """A new session of somebody who has shown who they are. To be called in a transaction."""
    session_id = sessions.create(
        connection,
        membership.user_id,
        account_id=membership.account_id,
        user_agent=origin.user_agent[: audit.LONGEST_TEXT],
        ip=origin.ip,
    )
    _record(connection, "session.created", origin, membership, session_id)
    return _next_pair(connection, tokens, membership, email, session_id)


def choose_membership(memberships: Sequence[Membership], account_id: str | None) -> Membership:
    """The place in the named account, or in the oldest one. Raises NotAllowed `not_a_member`."""
    for membership in memberships:
        if account_id in (None, membership.account_id):
            return membership
    raise NotAllowed("You do not belong to this account.", param="account", code="not_a_member")


def refresh(
    database: Database, tokens: Tokens, secret: str, *, account_id: str | None, origin: RequestOrigin
) -> SessionTokens:
    """The next pair of tokens, for the same account as the last one or for another one of the person.

    Raises NotAuthenticated `invalid_refresh_token`, and NotAllowed for an account that the person doesn't belong to,
    which leaves the token good.
    """
    with database.transaction() as connection:
        shown = sessions.read_token(connection, secret)
        if shown is not None and shown.session_active and not shown.used:
            return _rotate(connection, tokens, shown, secret, account_id, origin)
        if shown is not None and shown.used:
            _end_family(connection, shown, origin)
    raise _refused()


def log_out(database: Database, caller: Caller, session_id: str, origin: RequestOrigin) -> bool:
    """End one session of the caller's. Returns whether there was one to end."""
    with database.transaction() as connection:
        ended = sessions.revoke(connection, session_id, caller.user_id)
        if ended:
            _record(connection, "session.revoked", origin, caller, session_id)
    return ended


def log_out_everywhere(database: Database, caller: Caller, origin: RequestOrigin) -> int:
    """End all sessions of the caller's, this one too; returns how many."""
    with database.transaction() as connection:
        ended = sessions.revoke_all(connection, caller.user_id)
        _record(connection, "session.revoked", origin, caller, "all")
    return ended


def change_password(
    database: Database, login_limiter: LoginLimiter, caller: Caller, *, current: str, new: str, origin: RequestOrigin
) -> int:
    """Set another password and end all other sessions; returns how many ended. A letter was posted: nudge the queue.

    Raises InvalidRequest for a weak password, LimitExceeded, and NotAllowed `invalid_credentials` for a wrong current one.
    """
    attempt = LoginAttempt(caller.user_id, origin.ip)
    with database.connection() as connection:
        user = accounts.find(connection, caller.user_id)
    passwords.check_strength(new, email=user.email if user else "", param="new_password")
    login_limiter.count_attempt(attempt)
    if not passwords.verify(user.password_hash if user else None, current) or user is None:
        raise _wrong_password()
    login_limiter.record_success(attempt)
    return _set_password(database, user, passwords.hash_password(new), caller, origin)


def _set_password(database: Database, user: User, password_hash: str, caller: Caller, origin: RequestOrigin) -> int:
    with database.transaction() as connection:
        if not accounts.change_password(connection, user.id, user.password_hash, password_hash):
            raise _wrong_password()  # it was changed at this moment
        ended = sessions.revoke_all(connection, user.id, but=caller.session_id)
        email_jobs.enqueue_email(connection, EmailTemplate.PASSWORD_CHANGED, user_id=user.id)
        _record(connection, "password.changed", origin, caller, user.id)
    return ended


def _rotate(
    connection: Connection,
    tokens: Tokens,
    shown: RefreshToken,
    secret: str,
    account_id: str | None,
    origin: RequestOrigin,
) -> SessionTokens:
    belongs = accounts.memberships(connection, shown.user_id)
    stays = any(membership.account_id == shown.account_id for membership in belongs)
    membership = choose_membership(belongs, account_id or (shown.account_id if stays else None))
    # Between the look at the token and here somebody else may have spent it, or ended the session.
    good = sessions.use_token(connection, secret) and sessions.extend(
        connection, shown.session_id, account_id=membership.account_id, ip=origin.ip
    )
    if not good:
        raise _refused()
    return _next_pair(connection, tokens, membership, shown.email, shown.session_id)


def _end_family(connection: Connection, shown: RefreshToken, origin: RequestOrigin) -> None:
    if sessions.revoke(connection, shown.session_id, shown.user_id):
        audit.record(
            connection,
            "refresh.reused",
            origin,
            account_id=shown.account_id,
            user_id=shown.user_id,
            target=shown.session_id,
        )


def _next_pair(
    connection: Connection, tokens: Tokens, membership: Membership, email: str, session_id: str
) -> SessionTokens:
    secret = PREFIX + secrets.token_urlsafe(32)
    sessions.add_token(connection, session_id, secret)
    tokens.set_generations(signing_keys.valid_generations(connection))
    caller = Caller(membership.user_id, membership.account_id, membership.role, session_id=session_id)
    return SessionTokens(caller, email, tokens.issue(caller), secret)


def _record(connection: Connection, action: str, origin: RequestOrigin, who: Caller | Membership, target: str) -> None:
    audit.record(connection, action, origin, account_id=who.account_id, user_id=who.user_id, target=target)


def _refused() -> NotAuthenticated:
    return NotAuthenticated("The refresh token holds no more. Log in again.", code="invalid_refresh_token")


def _wrong_password() -> NotAllowed:
    return NotAllowed("The current password is wrong.", param="current_password", code="invalid_credentials")
