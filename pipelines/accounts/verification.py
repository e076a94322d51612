"""Proving that an address is one's own, by the secret of a letter that was sent there."""

from models import accounts, addresses, audit, email_tokens
from models.accounts import Caller
from models.audit import Trail
from models.database import Connection, Database
from models.email_tokens import Proof, Purpose
from models.errors import Conflict, InvalidRequest
from pipelines.accounts import letters
from pipelines.accounts.letters import Letter


def verify(database: Database, secret: str, trail: Trail) -> Proof:
    """Give the address to the user whom the letter was for.

    From then on nobody else who claimed it before comes in by it. Proving it again, by the same letter, is harmless.
    Raises InvalidRequest `invalid_token`, and Conflict `address_taken` where somebody else has proved it before.
    """
    with database.transaction() as connection:
        proof = email_tokens.redeem(connection, Purpose.VERIFY, secret)
        if proof is None:
            return _proved_before(connection, secret)
        own(connection, proof)
        record(connection, "email.verified", proof, trail)
    return proof


def ask_again(database: Database, caller: Caller) -> bool:
    """Send the letter once more. Returns False where the address is proved already."""
    with database.transaction() as connection:
        person = addresses.person(connection, caller.user_id)
        if person is None or person.verified:
            return False
        letters.post(connection, Letter.VERIFY_ADDRESS, user_id=caller.user_id, at_most_every=2)
    return True


def own(connection: Connection, proof: Proof) -> None:
    """Make the address the user's. Raises Conflict `address_taken`."""
    if not addresses.prove(connection, proof.user_id, proof.email):
        raise Conflict("This address belongs to somebody else by now.", param="token", code="address_taken")


def record(connection: Connection, action: str, proof: Proof, trail: Trail) -> None:
    """Tell it in the log of the user's oldest account."""
    belongs = accounts.memberships(connection, proof.user_id)
    account_id = belongs[0].account_id if belongs else None
    audit.record(connection, action, trail, account_id=account_id, user_id=proof.user_id, target=proof.user_id)


def invalid_token() -> InvalidRequest:
    """The refusal of a secret that is unknown, used up or too old: nobody learns which."""
    return InvalidRequest("This link has been used, or is too old. Ask for another one.", param="token",
                          code="invalid_token")  # fmt: skip


def _proved_before(connection: Connection, secret: str) -> Proof:
    """Whoever clicks twice has what they wanted."""
    proof = email_tokens.used(connection, Purpose.VERIFY, secret)
    if proof is None or not addresses.owns(connection, proof.user_id, proof.email):
        raise invalid_token()
    return proof
