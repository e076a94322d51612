"""Sign up and log in with an e-mail address and a password.

No response reveals whether an address is known. Until an address is verified, several users may have signed up with it
(`models.accounts.emails`), so a signup always succeeds, and the right password of one of them logs that one in. Signup
and login verify the password against the same number of hashes, adding dummies, so that both take the same time; both
count as login attempts, since a signup can guess a password too (docs/decisions/0009).
"""

import email_validator

from models.accounts import accounts, audit, emails
from models.accounts.accounts import MAX_LOGIN_CANDIDATES, User
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest, LimitExceeded, NotAuthenticated, Unavailable
from pipelines.accounts import email_jobs, new_account, passwords, sessions
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.login_limits import CountedAttempt, LoginAttempt, LoginLimiter
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup_policy import OPEN, SignupPolicy

# Allow names of a local network, for an installation that runs in one.
email_validator.SPECIAL_USE_DOMAIN_NAMES.remove("local")


def sign_up(
    database: Database,
    tokens: AccessTokens,
    login_limiter: LoginLimiter,
    *,
    email: str,
    password: str,
    origin: RequestOrigin,
    policy: SignupPolicy = OPEN,
) -> SessionTokens:
    """Create a user with an account, or log in the user who signed up with the same address and password before.

    May enqueue an e-mail: nudge the queue. Raises InvalidRequest for a malformed address or a weak password, NotAllowed
    for an address that the policy does not admit, and LimitExceeded.
    """
    address = normalize_email(email)
    policy.check_signup(address)
    passwords.check_strength(password, email=address)
    counted = _count_attempt(login_limiter, address, origin, _candidates(database, address))
    password_hash = passwords.hash_password(password)
    while True:
        candidates = _candidates(database, address)
        if (user := _find_by_password(candidates, password, counted)) is not None:
            return _start_session(database, tokens, login_limiter, counted, user, password, origin)
        if counted.user_ids is not None:
            # The attempt was admitted only for users who are known in this network.
            raise LimitExceeded("Too many attempts. Try again in a minute.", code="too_many_attempts", retry_after=60)
        with database.transaction() as connection:
            emails.lock(connection, address)
            if accounts.login_candidates(connection, address) == candidates:
                return _create_user(connection, tokens, candidates, address, password_hash, origin)


def log_in(
    database: Database,
    tokens: AccessTokens,
    login_limiter: LoginLimiter,
    *,
    email: str,
    password: str,
    account_id: str | None = None,
    origin: RequestOrigin,
) -> SessionTokens:
    """Start a session of a user, in the given account or their oldest one.

    Raises NotAuthenticated `invalid_credentials` for an unknown address and for a wrong password, LimitExceeded, and
    NotAllowed for an account of which the user is not a member.
    """
    address = _lookup_address(email)
    candidates = _candidates(database, address)
    counted = _count_attempt(login_limiter, address, origin, candidates)
    user = _find_by_password(candidates, password, counted)
    if user is None:
        _record_failure(database, candidates, origin)
        raise NotAuthenticated("The e-mail address or the password is wrong.", code="invalid_credentials")
    return _start_session(database, tokens, login_limiter, counted, user, password, origin, account_id)


def normalize_email(email: str) -> str:
    """Return the address as it is stored. Raises InvalidRequest if it is malformed; deliverability is not checked."""
    address = _normalize(email)
    if not address.rpartition("@")[0].isascii():
        # Few mail servers take one (SMTPUTF8, RFC 6531), and without the e-mail the address cannot be verified.
        message = "E-mail addresses with characters other than ASCII before the @ are not supported."
        raise InvalidRequest(message, param="email", code="invalid_email")
    return address


def _normalize(email: str) -> str:
    try:
        checked = email_validator.validate_email(
            email, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise InvalidRequest(str(error), param="email", code="invalid_email") from None
    return checked.normalized


def _lookup_address(email: str) -> str:
    """Return the address as signup stored it; a malformed one unchanged, so that it is not found."""
    try:
        return _normalize(email)  # earlier versions stored addresses that are not ASCII
    except InvalidRequest:
        return email


def _candidates(database: Database, address: str) -> list[User]:
    with database.connection() as connection:
        return accounts.login_candidates(connection, address)


def _count_attempt(
    login_limiter: LoginLimiter, address: str, origin: RequestOrigin, candidates: list[User]
) -> CountedAttempt:
    attempt = LoginAttempt(address.lower(), origin.ip)
    return login_limiter.count_attempt(attempt, [user.id for user in candidates])


def _find_by_password(candidates: list[User], password: str, counted: CountedAttempt) -> User | None:
    """Return the user with this password. Call it without a connection: each hash takes a core for 20 ms."""
    hashes = [user.password_hash if counted.admits(user.id) else None for user in candidates]
    hashes += [None] * (MAX_LOGIN_CANDIDATES - len(candidates))
    matches = [passwords.verify(stored, password) for stored in hashes]
    return next((user for user, match in zip(candidates, matches, strict=False) if match), None)


def _start_session(
    database: Database,
    tokens: AccessTokens,
    login_limiter: LoginLimiter,
    counted: CountedAttempt,
    user: User,
    password: str,
    origin: RequestOrigin,
    account_id: str | None = None,
) -> SessionTokens:
    stored = user.password_hash or ""
    rehashed = passwords.hash_password(password) if passwords.needs_rehash(stored) else None
    with database.transaction() as connection:
        # A concurrent password change ends all sessions, and must not miss this one.
        if not accounts.has_password(connection, user.id, stored):
            raise Unavailable("The password was changed during the login. Try again.")
        membership = sessions.choose_membership(accounts.memberships(connection, user.id), account_id)
        session_tokens = sessions.start(connection, tokens, membership, user.email, origin)
    if rehashed is not None:
        with database.connection() as connection:
            accounts.change_password(connection, user.id, stored, rehashed)
    login_limiter.record_success(counted, user.id)
    return session_tokens


def _create_user(
    connection: Connection,
    tokens: AccessTokens,
    candidates: list[User],
    address: str,
    password_hash: str,
    origin: RequestOrigin,
) -> SessionTokens:
    """Create a user. E-mails the address's owner if it is verified, otherwise sends a verification e-mail."""
    membership = new_account.create(
        connection, email=address, password_hash=password_hash, plan_id=accounts.UNVERIFIED_PLAN
    )
    user_id, account_id = membership.user_id, membership.account_id
    audit.record(connection, "user.created", origin, account_id=account_id, user_id=user_id, target=user_id)
    owner = next((user for user in candidates if user.verified), None)
    if owner is None:
        email_jobs.enqueue_email(connection, EmailTemplate.VERIFY_ADDRESS, user_id=user_id)
    else:
        email_jobs.enqueue_email(connection, EmailTemplate.SIGNUP_ATTEMPTED, user_id=owner.id, at_most_every=60)
    return sessions.start(connection, tokens, membership, address, origin)


def _record_failure(database: Database, candidates: list[User], origin: RequestOrigin) -> None:
    """Record a failed login; for an unknown address too, without a user, so that it takes as long."""
    user_id = candidates[0].id if candidates else ""
    with database.connection() as connection:
        memberships = accounts.memberships(connection, user_id)
        account_id = memberships[0].account_id if memberships else None
        audit.record(connection, "login.failed", origin, account_id=account_id, user_id=user_id or None)
