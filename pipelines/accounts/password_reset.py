"""A forgotten password: a letter to the address, and by its secret a new password.

Whether an address is known is looked up by a job, after the request has been answered, which so takes alike for all.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from models.access import sessions
from models.accounts import accounts, email_tokens, emails
from models.accounts.audit import RequestOrigin
from models.accounts.email_tokens import TokenOwner, TokenPurpose
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, clear_arguments, enqueue
from models.platform.database import Connection, Database
from pipelines.accounts import email_jobs, passwords
from pipelines.accounts.email_jobs import EmailTemplate, current_window
from pipelines.accounts.email_verification import assign_email, invalid_token, record_audit

KIND = "password.forgotten"

#: Minutes within which an address gets one letter, however often it is asked for.
QUIET = 2


def request_reset(database: Database, email: str) -> None:
    """Have a letter sent to the address, if somebody has it. `email` is an address in its normal form."""
    name = hashlib.sha256(email.lower().encode()).hexdigest()[:32]
    job = NewJob(
        kind=KIND,
        account_id=PLATFORM_ACCOUNT,
        arguments={"email": email},
        unique_key=f"forgotten:{name}:{current_window(QUIET)}",
    )
    with database.connection() as connection:
        enqueue(connection, job)


def run(attempt: Attempt) -> Ending:
    """The job: find whose address it is and have the letter written. The address does not stay in the job."""
    with attempt.database.connection() as connection:
        known = accounts.login_candidates(connection, attempt.job.arguments.get("email", ""))
    follow_ups = [email_jobs.email_job(EmailTemplate.RESET_PASSWORD, user_id=user.id) for user in known[:1]]
    plain = plain_ending(attempt, "completed")
    return Ending(
        "completed", plain.events, record=lambda connection: _forget(connection, attempt), follow_ups=follow_ups
    )


def end_without_result(
    attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None = None
) -> Ending:
    """The end where there was no other: nor does the address stay here."""
    plain = plain_ending(attempt, state, error)
    return Ending(plain.state, plain.events, error=plain.error, record=lambda connection: _forget(connection, attempt))


def check_secret(database: Database, secret: str) -> TokenOwner:
    """Whom a secret would let set a password. Raises InvalidRequest `invalid_token`, before any password is hashed."""
    with database.connection() as connection:
        proof = email_tokens.peek(connection, TokenPurpose.RESET, secret)
    if proof is None:
        raise invalid_token()
    return proof


def set_password(database: Database, secret: str, password: str, origin: RequestOrigin) -> TokenOwner:
    """Set a new password by a letter's secret, which also proves the address; all sessions of the user end.

    Raises InvalidRequest `invalid_token` or `invalid_password`, and Conflict `address_taken`.
    """
    proof = check_secret(database, secret)
    passwords.check_strength(password, email=proof.email)
    password_hash = passwords.hash_password(password)  # no connection is held meanwhile
    with database.transaction() as connection:
        redeemed = email_tokens.redeem(connection, TokenPurpose.RESET, secret)
        if redeemed is None:
            raise invalid_token()
        _replace(connection, redeemed, password_hash)
        email_jobs.enqueue_email(connection, EmailTemplate.PASSWORD_CHANGED, user_id=redeemed.user_id)
        record_audit(connection, "password.reset", redeemed, origin)
    return redeemed


def _replace(connection: Connection, proof: TokenOwner, password_hash: str) -> None:
    person = emails.read_user(connection, proof.user_id)
    assign_email(connection, proof)
    if person is not None and not person.verified:
        # Whoever signed up with this address need not be who reads its mail: nothing that they left opens the door.
        emails.revoke_other_credentials(connection, proof.user_id)
    accounts.set_password(connection, proof.user_id, password_hash)
    sessions.revoke_all(connection, proof.user_id)


def _forget(connection: Connection, attempt: Attempt) -> None:
    clear_arguments(connection, attempt.job.id)
