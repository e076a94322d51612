"""Proving that an address is one's own: by the secret of a letter that was sent there, and as the one who claimed it.

The letter alone proves the mailbox. Whoever signs up with a stranger's address would be let in by the stranger's click:
with a password, sessions and keys that the stranger knows nothing of. So it takes both.
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
    """Who says that it was they who signed up: somebody who gives the password, or who has logged in."""

    password: str | None = None
    caller: Caller | None = None


def verify(
    database: Database, login_limiter: LoginLimiter, secret: str, claimant: SignupCredentials, origin: RequestOrigin
) -> TokenOwner:
    """Give the address to the user whom the letter was for, if it is they who ask.

    From then on nobody else who claimed it before comes in by it. Proving it again, by the same letter, is harmless.
    Raises InvalidRequest `invalid_token`, NotAuthenticated `proof_required` or `invalid_credentials`, NotAllowed
    `another_user`, LimitExceeded, and Conflict `address_taken` where somebody else has proved it before.
    """
    with database.connection() as connection:
        proof = email_tokens.peek(connection, TokenPurpose.VERIFY, secret)
        if proof is None:
            return _proved_before(connection, secret)
    _check(database, login_limiter, proof, claimant, origin)
    with database.transaction() as connection:
        redeemed = email_tokens.redeem(connection, TokenPurpose.VERIFY, secret)
        if redeemed is None:
            return _proved_before(connection, secret)
        assign_email(connection, redeemed)
        record_audit(connection, "email.verified", redeemed, origin)
    return redeemed


def resend(database: Database, caller: Caller) -> bool:
    """Send the letter once more. Returns False where the address is proved already."""
    with database.transaction() as connection:
        person = emails.read_user(connection, caller.user_id)
        if person is None or person.verified:
            return False
        email_jobs.enqueue_email(connection, EmailTemplate.VERIFY_ADDRESS, user_id=caller.user_id, at_most_every=2)
    return True


def assign_email(connection: Connection, proof: TokenOwner) -> None:
    """Make the address the user's. Raises Conflict `address_taken`."""
    if not emails.verify(connection, proof.user_id, proof.email):
        raise Conflict("This address belongs to somebody else by now.", param="token", code="address_taken")


def record_audit(connection: Connection, action: str, proof: TokenOwner, origin: RequestOrigin) -> None:
    """Tell it in the log of the user's oldest account."""
    belongs = accounts.memberships(connection, proof.user_id)
    account_id = belongs[0].account_id if belongs else None
    audit.record(connection, action, origin, account_id=account_id, user_id=proof.user_id, target=proof.user_id)


def invalid_token() -> InvalidRequest:
    """The refusal of a secret that is unknown, used up or too old: nobody learns which."""
    return InvalidRequest("This link has been used, or is too old. Ask for another one.", param="token",
                          code="invalid_token")  # fmt: skip


def _check(
    database: Database,
    login_limiter: LoginLimiter,
    proof: TokenOwner,
    claimant: SignupCredentials,
    origin: RequestOrigin,
) -> None:
    """Whether it was they who signed up."""
    if claimant.password is not None:
        return _check_password(database, login_limiter, proof, claimant.password, origin)
    if claimant.caller is None:
        message = "Give the password that you signed up with, or log in. If you never signed up, set a new password."
        raise NotAuthenticated(message, param="password", code="proof_required")
    if claimant.caller.user_id != proof.user_id:
        raise NotAllowed("Another user signed up with this address than the one of your token.", code="another_user")


def _check_password(
    database: Database, login_limiter: LoginLimiter, proof: TokenOwner, password: str, origin: RequestOrigin
) -> None:
    """Counted together with the log-ins by this address: each is a guess."""
    attempt = LoginAttempt(proof.email.lower(), origin.ip)
    login_limiter.count_attempt(attempt)
    with database.connection() as connection:
        user = accounts.find(connection, proof.user_id)
    if not passwords.verify(user.password_hash if user else None, password):
        message = "This is not the password that somebody signed up with."
        raise NotAuthenticated(message, param="password", code="invalid_credentials")
    login_limiter.record_success(attempt)


def _proved_before(connection: Connection, secret: str) -> TokenOwner:
    """Whoever clicks twice has what they wanted."""
    proof = email_tokens.find_used(connection, TokenPurpose.VERIFY, secret)
    if proof is None or not emails.owns(connection, proof.user_id, proof.email):
        raise invalid_token()
    return proof
