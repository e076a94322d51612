"""Reset a forgotten password: send an e-mail to the address, and set a new password by the secret in its link.

A job looks up whether the address is known, after the request has been answered, so that the response time does not
reveal it.

Somebody else may have signed up with an address that is not verified. So its owner gets a new user and a new account:
nothing that was made under the claim, such as schedules, memories, keys or sessions, becomes theirs. The earlier user
keeps an unverified account of their own and can no longer log in with the address.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from models.access import api_keys, sessions
from models.accounts import accounts, email_tokens, emails
from models.accounts.audit import RequestOrigin
from models.accounts.email_tokens import TokenOwner, TokenPurpose
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, clear_arguments, enqueue
from models.platform.database import Connection, Database
from pipelines.accounts import email_jobs, new_account, passwords
from pipelines.accounts.email_jobs import EmailTemplate, current_window
from pipelines.accounts.email_verification import assign_email, invalid_token, record_audit

KIND = "password.forgotten"

#: Minutes within which an address gets at most one e-mail.
RESEND_INTERVAL = 2


def request_reset(database: Database, email: str) -> None:
    """Send an e-mail to the address, if it has a user. `email` must be normalized."""
    email_hash = hashlib.sha256(email.lower().encode()).hexdigest()[:32]
    job = NewJob(
        kind=KIND,
        account_id=PLATFORM_ACCOUNT,
        arguments={"email": email},
        unique_key=f"forgotten:{email_hash}:{current_window(RESEND_INTERVAL)}",
    )
    with database.connection() as connection:
        enqueue(connection, job)


def run(attempt: Attempt) -> Ending:
    """Find the user of the address and enqueue their e-mail. Clears the job's arguments, which hold the address."""
    with attempt.database.connection() as connection:
        users = accounts.login_candidates(connection, attempt.job.arguments.get("email", ""))
    follow_ups = [email_jobs.email_job(EmailTemplate.RESET_PASSWORD, user_id=user.id) for user in users[:1]]
    ending = plain_ending(attempt, "completed")
    return Ending(
        "completed", ending.events, record=lambda connection: _clear_email(connection, attempt), follow_ups=follow_ups
    )


def end_without_result(
    attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None = None
) -> Ending:
    """End an unsuccessful job. Clears its arguments, which hold the address."""
    ending = plain_ending(attempt, state, error)
    return Ending(
        ending.state, ending.events, error=ending.error, record=lambda connection: _clear_email(connection, attempt)
    )


def check_secret(database: Database, secret: str) -> TokenOwner:
    """Return the user who may set a password by this secret. Raises InvalidRequest `invalid_token`."""
    with database.connection() as connection:
        owner = email_tokens.peek(connection, TokenPurpose.RESET, secret)
    if owner is None:
        raise invalid_token()
    return owner


def set_password(
    database: Database, secret: str, password: str, origin: RequestOrigin, *, revoke_api_keys: bool = False
) -> TokenOwner:
    """Set a new password by the secret of an e-mail. Ends all sessions of the user.

    For an unverified address it creates a new user, whose address is verified. API keys stay valid unless
    `revoke_api_keys`; an e-mail lists them (docs/decisions/0038).

    Raises InvalidRequest `invalid_token` or `invalid_password`, and Conflict `address_taken`.
    """
    owner = check_secret(database, secret)  # before the password is hashed, which takes 20 ms of a core
    passwords.check_strength(password, email=owner.email)
    password_hash = passwords.hash_password(password)  # outside the transaction
    with database.transaction() as connection:
        redeemed = email_tokens.redeem(connection, TokenPurpose.RESET, secret)
        if redeemed is None:
            raise invalid_token()
        owner = _replace_password(connection, redeemed, password_hash)
        if revoke_api_keys:
            api_keys.revoke_all_of(connection, owner.user_id)
        email_jobs.enqueue_email(connection, EmailTemplate.PASSWORD_CHANGED, user_id=owner.user_id)
        record_audit(connection, "password.reset", owner, origin)
    return owner


def _replace_password(connection: Connection, owner: TokenOwner, password_hash: str) -> TokenOwner:
    """Set the password of the user, or of a new user where the address is not verified. Returns that user."""
    emails.lock(connection, owner.email)
    if not emails.owns(connection, owner.user_id, owner.email):
        created = TokenOwner(
            new_account.create(connection, email=owner.email, password_hash=password_hash).user_id, owner.email
        )
        assign_email(connection, created)
        return created
    accounts.set_password(connection, owner.user_id, password_hash)
    sessions.revoke_all(connection, owner.user_id)
    return owner


def _clear_email(connection: Connection, attempt: Attempt) -> None:
    clear_arguments(connection, attempt.job.id)
