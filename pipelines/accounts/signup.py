"""Signing up and logging in: from an address and a password to a session.

Nobody learns here whether an address is known. It may have several claimants until one of them has proved that it is
theirs (`models.accounts.emails`), so signing up always succeeds, and whoever comes with the right password of one of them
is that one. Both try the password on the same number of people, and make up those who are missing; both are counted,
for a signup is a guess too. Docs: decisions/0009.
"""

import email_validator

from models.accounts import accounts, audit, emails
from models.accounts.accounts import CANDIDATES_MOST, User
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest, NotAuthenticated, Unavailable
from pipelines.accounts import email_jobs, passwords, sessions
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.tokens import Tokens

# Names of a home or office network are good enough for an installation that stands in one.
email_validator.SPECIAL_USE_DOMAIN_NAMES.remove("local")


def sign_up(
    database: Database, tokens: Tokens, login_limiter: LoginLimiter, *, email: str, password: str, origin: RequestOrigin
) -> SessionTokens:
    """A session of a new user with an account of their own, or of the one who has signed up so before.

    Letters may have been posted: nudge the queue. Raises InvalidRequest for a malformed address or a weak password,
    and LimitExceeded.
    """
    address = normalize_email(email)
    passwords.check_strength(password, email=address)
    attempt = LoginAttempt(address.lower(), origin.ip)
    login_limiter.count_attempt(attempt)
    password_hash = passwords.hash_password(password)
    while True:
        known = _candidates(database, address)
        if (user := _whose(known, password)) is not None:
            return _let_in(database, tokens, login_limiter, attempt, user, password, origin)
        with database.transaction() as connection:
            emails.lock(connection, address)
            if accounts.login_candidates(connection, address) == known:
                return _welcome(connection, tokens, known, address, password_hash, origin)


def log_in(
    database: Database,
    tokens: Tokens,
    login_limiter: LoginLimiter,
    *,
    email: str,
    password: str,
    account_id: str | None = None,
    origin: RequestOrigin,
) -> SessionTokens:
    """A session of a known user, for the named account or their oldest one.

    Raises NotAuthenticated `invalid_credentials`, alike for an unknown address and a wrong password, LimitExceeded, and
    NotAllowed for an account that the user doesn't belong to.
    """
    address = _known_address(email)
    attempt = LoginAttempt(address.lower(), origin.ip)
    login_limiter.count_attempt(attempt)
    known = _candidates(database, address)
    user = _whose(known, password)
    if user is None:
        _record_failure(database, known, origin)
        raise _wrong()
    return _let_in(database, tokens, login_limiter, attempt, user, password, origin, account_id)


def normalize_email(email: str) -> str:
    """The address as it is stored. Raises InvalidRequest when it isn't one; whether it takes mail is not asked."""
    try:
        checked = email_validator.validate_email(
            email, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise InvalidRequest(str(error), param="email", code="invalid_email") from None
    return checked.normalized


def _known_address(email: str) -> str:
    """The address as signing up would have stored it; what is no address is looked up as it is, and not found."""
    try:
        return normalize_email(email)
    except InvalidRequest:
        return email


def _candidates(database: Database, address: str) -> list[User]:
    with database.connection() as connection:
        return accounts.login_candidates(connection, address)


def _whose(known: list[User], password: str) -> User | None:
    """Whose password it is. No connection is held meanwhile: each look takes a core for tens of milliseconds."""
    hashes = [user.password_hash for user in known] + [None] * (CANDIDATES_MOST - len(known))
    matches = [passwords.verify(stored, password) for stored in hashes]
    return next((user for user, right in zip(known, matches, strict=False) if right), None)


def _let_in(
    database: Database,
    tokens: Tokens,
    login_limiter: LoginLimiter,
    attempt: LoginAttempt,
    user: User,
    password: str,
    origin: RequestOrigin,
    account_id: str | None = None,
) -> SessionTokens:
    stored = user.password_hash or ""
    renewed = passwords.hash_password(password) if passwords.needs_rehash(stored) else None
    with database.transaction() as connection:
        # A password that is changed at this moment ends all sessions: this one must not begin behind its back.
        if not accounts.has_password(connection, user.id, stored):
            raise Unavailable("The password was changed at this moment. Try again.")
        membership = sessions.choose_membership(accounts.memberships(connection, user.id), account_id)
        entry = sessions.start(connection, tokens, membership, user.email, origin)
    if renewed is not None:
        with database.connection() as connection:
            accounts.change_password(connection, user.id, stored, renewed)
    login_limiter.record_success(attempt)
    return entry


def _welcome(
    connection: Connection, tokens: Tokens, known: list[User], address: str, password_hash: str, origin: RequestOrigin
) -> SessionTokens:
    """A new user. Who owns the address already hears of it; anybody else is asked to prove that it is theirs."""
    membership = accounts.create(connection, email=address, password_hash=password_hash)
    user_id, account_id = membership.user_id, membership.account_id
    audit.record(connection, "user.created", origin, account_id=account_id, user_id=user_id, target=user_id)
    owner = next((user for user in known if user.verified), None)
    letter = EmailTemplate.SIGNUP_ATTEMPTED if owner else EmailTemplate.VERIFY_ADDRESS
    email_jobs.enqueue_email(connection, letter, user_id=owner.id if owner else user_id)
    return sessions.start(connection, tokens, membership, address, origin)


def _record_failure(database: Database, known: list[User], origin: RequestOrigin) -> None:
    """For an unknown address too, in the name of nobody: it should take as long."""
    user_id = known[0].id if known else ""
    with database.connection() as connection:
        belongs = accounts.memberships(connection, user_id)
        account_id = belongs[0].account_id if belongs else None
        audit.record(connection, "login.failed", origin, account_id=account_id, user_id=user_id or None)


def _wrong() -> NotAuthenticated:
    return NotAuthenticated("The e-mail address or the password is wrong.", code="invalid_credentials")
