"""Start, refresh and end sessions.

An access token is valid for minutes. A refresh token cannot be guessed, works once, and is exchanged for the next pair.
Using one a second time ends the session, since a copy must have been stolen.

The first seconds after its use are an exception: an application with two tabs sends it twice, and a client that has
lost the response sends it again. Then the same client gets the same next refresh token once more, as long as that has
not been used, and another client is rejected; the session continues. The next refresh token is derived from its
predecessor and the installation's secret, so that it can be repeated although only hashes are stored.
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
from pipelines.accounts.access_tokens import LIFETIME, AccessTokens
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter

#: The prefix of refresh tokens, by which secret scanners recognise a leaked one.
PREFIX = "rt_"


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """An access token that is valid for `expires_in` seconds, and the refresh token for the next pair."""

    caller: Caller
    email: str
    access_token: str
    refresh_token: str
    expires_in: int = LIFETIME


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """A request with the refresh token `secret`, whose next token is `successor`, for an account or the same one."""

    secret: str
    successor: str
    account_id: str | None
    origin: RequestOrigin


def start(
    connection: Connection, tokens: AccessTokens, membership: Membership, email: str, origin: RequestOrigin
) -> SessionTokens:
    """Start a session of an authenticated user, in the caller's transaction."""
    session_id = sessions.create(
        connection,
        membership.user_id,
        account_id=membership.account_id,
        user_agent=origin.user_agent[: audit.MAX_TEXT],
        ip=origin.ip,
    )
    _record(connection, "session.created", origin, membership, session_id)
    secret = PREFIX + secrets.token_urlsafe(32)
    sessions.add_token(connection, session_id, secret)
    return _session_tokens(connection, tokens, membership, email, session_id, secret)


def choose_membership(memberships: Sequence[Membership], account_id: str | None) -> Membership:
    """Return the membership in the given account, or in the oldest one. Raises NotAllowed `not_a_member`."""
    for membership in memberships:
        if account_id in (None, membership.account_id):
            return membership
    raise NotAllowed("You are not a member of this account.", param="account", code="not_a_member")


def refresh(
    database: Database, tokens: AccessTokens, secret: str, *, account_id: str | None, origin: RequestOrigin
) -> SessionTokens:
    """Exchange a refresh token for the next pair of tokens, for the same account or another one of the user.

    Raises NotAuthenticated `invalid_refresh_token`, and NotAllowed if the user is not a member of the account, which
    leaves the token valid.
    """
    request = RefreshRequest(secret, PREFIX + tokens.derive_successor(secret), account_id, origin)
    with database.transaction() as connection:
        refresh_token = sessions.read_token(connection, secret)
        if refresh_token is not None:
            membership = _rotate(connection, refresh_token, request) or _repeat(connection, request)
            if membership is not None:
                email, session_id = refresh_token.email, refresh_token.session_id
                return _session_tokens(connection, tokens, membership, email, session_id, request.successor)
    message = "The refresh token is invalid, used or expired. Log in again."
    raise NotAuthenticated(message, code="invalid_refresh_token")


def log_out(database: Database, caller: Caller, session_id: str, origin: RequestOrigin) -> bool:
    """End a session of the caller. Returns False if there is no such active session."""
    with database.transaction() as connection:
        ended = sessions.revoke(connection, session_id, caller.user_id)
        if ended:
            _record(connection, "session.revoked", origin, caller, session_id)
    return ended


def log_out_everywhere(database: Database, caller: Caller, origin: RequestOrigin) -> int:
    """End all sessions of the caller, including this one; returns how many."""
    with database.transaction() as connection:
        ended = sessions.revoke_all(connection, caller.user_id)
        _record(connection, "session.revoked", origin, caller, "all")
    return ended


def change_password(
    database: Database, login_limiter: LoginLimiter, caller: Caller, *, current: str, new: str, origin: RequestOrigin
) -> int:
    """Change the password and end all other sessions; returns how many. Enqueues an e-mail: nudge the queue.

    Raises InvalidRequest for a weak password, LimitExceeded, and NotAllowed `invalid_credentials` for a wrong current
    password.
    """
    attempt = LoginAttempt(caller.user_id, origin.ip, purpose="password-change")
    with database.connection() as connection:
        user = accounts.find(connection, caller.user_id)
    passwords.check_strength(new, email=user.email if user else "", param="new_password")
    counted = login_limiter.count_attempt(attempt)
    if not passwords.verify(user.password_hash if user else None, current) or user is None:
        raise _wrong_password()
    login_limiter.record_success(counted, caller.user_id)
    return _set_password(database, user, passwords.hash_password(new), caller, origin)


def _set_password(database: Database, user: User, password_hash: str, caller: Caller, origin: RequestOrigin) -> int:
    with database.transaction() as connection:
        if not accounts.change_password(connection, user.id, user.password_hash, password_hash):
            raise _wrong_password()  # changed by another request in the meantime
        ended = sessions.revoke_all(connection, user.id, except_session_id=caller.session_id)
        email_jobs.enqueue_email(connection, EmailTemplate.PASSWORD_CHANGED, user_id=user.id)
        _record(connection, "password.changed", origin, caller, user.id)
    return ended


def _rotate(connection: Connection, refresh_token: RefreshToken, request: RefreshRequest) -> Membership | None:
    """Use a token and add the next one. Returns None if the token was used before, or its session has ended."""
    if refresh_token.used or not refresh_token.session_active:
        return None
    membership = _membership_of_refresh(connection, refresh_token, request.account_id)
    session_id, ip = refresh_token.session_id, request.origin.ip
    used = sessions.use_token(connection, request.secret)
    if not (used and sessions.extend(connection, session_id, account_id=membership.account_id, ip=ip)):
        return None
    sessions.add_token(connection, session_id, request.successor)
    return membership


def _repeat(connection: Connection, request: RefreshRequest) -> Membership | None:
    """Return the membership for a token that the same client used seconds ago, if the next one is unused.

    The use of an older token ends its session.
    """
    refresh_token = sessions.read_token(connection, request.secret)  # again: another request may have used it since
    if refresh_token is None or not refresh_token.used:
        return None
    if not refresh_token.recently_used:
        _end_session_of_reused_token(connection, refresh_token, request.origin)
        return None
    next_token, origin = sessions.read_token(connection, request.successor), request.origin
    same_client = (refresh_token.ip, refresh_token.user_agent) == (origin.ip, origin.user_agent[: audit.MAX_TEXT])
    if next_token is None or next_token.used or not next_token.session_active or not same_client:
        return None
    return _membership_of_refresh(connection, refresh_token, request.account_id)


def _membership_of_refresh(connection: Connection, refresh_token: RefreshToken, account_id: str | None) -> Membership:
    memberships = accounts.memberships(connection, refresh_token.user_id)
    still_member = any(membership.account_id == refresh_token.account_id for membership in memberships)
    return choose_membership(memberships, account_id or (refresh_token.account_id if still_member else None))


def _end_session_of_reused_token(connection: Connection, refresh_token: RefreshToken, origin: RequestOrigin) -> None:
    if sessions.revoke(connection, refresh_token.session_id, refresh_token.user_id):
        audit.record(
            connection,
            "refresh.reused",
            origin,
            account_id=refresh_token.account_id,
            user_id=refresh_token.user_id,
            target=refresh_token.session_id,
        )


def _session_tokens(
    connection: Connection, tokens: AccessTokens, membership: Membership, email: str, session_id: str, secret: str
) -> SessionTokens:
    tokens.set_generations(signing_keys.valid_generations(connection))
    caller = Caller(membership.user_id, membership.account_id, membership.role, session_id=session_id)
    return SessionTokens(caller, email, tokens.issue(caller), secret)


def _record(
    connection: Connection, action: str, origin: RequestOrigin, actor: Caller | Membership, target: str
) -> None:
    audit.record(connection, action, origin, account_id=actor.account_id, user_id=actor.user_id, target=target)


def _wrong_password() -> NotAllowed:
    return NotAllowed("The current password is wrong.", param="current_password", code="invalid_credentials")
