"""Verify an e-mail address: by the secret of an e-mail sent to it, and by the credentials of the user who signed up.

The secret alone proves access to the mailbox. An attacker could sign up with somebody else's address and be verified by
the owner's click, and would keep a password, sessions and API keys for the account. So both are required.
"""

from dataclasses import dataclass

from models.accounts import accounts, audit, email_tokens, emails
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.accounts.email_tokens import TokenOwner, TokenPurpose
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotAllowed, NotAuthenticated
from pipelines.accounts import email_jobs, passwords
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter


@dataclass(frozen=True, slots=True)
class SignupCredentials:
    """Credentials of the user who signed up: their password, or an authenticated caller."""

    password: str | None = None
    caller: Caller | None = None


def verify(
    database: Database, login_limiter: LoginLimiter, secret: str, credentials: SignupCredentials, origin: RequestOrigin
) -> TokenOwner:
    """Verify the address of the user to whom the secret was sent, given their credentials.

    From then on no other user who signed up with the address can log in with it. Using the same secret again has no
    effect. Raises InvalidRequest `invalid_token`, NotAuthenticated `proof_required` or `invalid_credentials`,
    NotAllowed `another_user`, LimitExceeded, and Conflict `address_taken` if another user has verified the address.
    """
    with database.connection() as connection:
        owner = email_tokens.peek(connection, TokenPurpose.VERIFY, secret)
        if owner is None:
            return _verified_before(connection, secret)
    _check_credentials(database, login_limiter, owner, credentials, origin)
    with database.transaction() as connection:
        redeemed = email_tokens.redeem(connection, TokenPurpose.VERIFY, secret)
        if redeemed is None:
            return _verified_before(connection, secret)
        assign_email(connection, redeemed)
        record_audit(connection, "email.verified", redeemed, origin)
    return redeemed


def resend(database: Database, caller: Caller) -> bool:
    """Send the verification e-mail again. Returns False if the address is verified already."""
    with database.transaction() as connection:
        user = emails.read_user(connection, caller.user_id)
        if user is None or user.verified:
            return False
        email_jobs.enqueue_email(connection, EmailTemplate.VERIFY_ADDRESS, user_id=caller.user_id, at_most_every=2)
    return True


def assign_email(connection: Connection, owner: TokenOwner) -> None:
    """Make the address the user's verified address. Raises Conflict `address_taken`."""
    if not emails.verify(connection, owner.user_id, owner.email):
        message = "This e-mail address has been verified by another user."
        raise Conflict(message, param="token", code="address_taken")


def record_audit(connection: Connection, action: str, owner: TokenOwner, origin: RequestOrigin) -> None:
    """Record an action in the audit log of the user's oldest account."""
    memberships = accounts.memberships(connection, owner.user_id)
    account_id = memberships[0].account_id if memberships else None
    audit.record(connection, action, origin, account_id=account_id, user_id=owner.user_id, target=owner.user_id)


def invalid_token() -> InvalidRequest:
    """Return the error for a secret that is unknown, used or expired; it does not say which."""
    message = "This link is invalid, has been used, or has expired. Request a new one."
    return InvalidRequest(message, param="token", code="invalid_token")


def _check_credentials(
    database: Database,
    login_limiter: LoginLimiter,
    owner: TokenOwner,
    credentials: SignupCredentials,
    origin: RequestOrigin,
) -> None:
    """Raise an error unless the credentials are those of the user who signed up."""
    if credentials.password is not None:
        return _check_password(database, login_limiter, owner, credentials.password, origin)
    if credentials.caller is None:
        message = (
            "Send the password that you signed up with, or log in. If you did not sign up, set a new password instead."
        )
        raise NotAuthenticated(message, param="password", code="proof_required")
    if credentials.caller.user_id != owner.user_id:
        message = "This link belongs to another user than the one that you are logged in as."
        raise NotAllowed(message, code="another_user")


def _check_password(
    database: Database, login_limiter: LoginLimiter, owner: TokenOwner, password: str, origin: RequestOrigin
) -> None:
    """Verify the password; the attempt counts as a login attempt, since both guess the same password."""
    counted = login_limiter.count_attempt(LoginAttempt(owner.email.lower(), origin.ip), [owner.user_id])
    with database.connection() as connection:
        user = accounts.find(connection, owner.user_id)
    if not passwords.verify(user.password_hash if user else None, password):
        message = "The password is wrong. Send the password that you signed up with."
        raise NotAuthenticated(message, param="password", code="invalid_credentials")
    login_limiter.record_success(counted, owner.user_id)


def _verified_before(connection: Connection, secret: str) -> TokenOwner:
    """Return the owner of a used secret whose address is verified, so that a second click succeeds."""
    owner = email_tokens.find_used(connection, TokenPurpose.VERIFY, secret)
    if owner is None or not emails.owns(connection, owner.user_id, owner.email):
        raise invalid_token()
    return owner
