"""Operators come and go at the machine itself, by `sangha admin`: no route makes one."""

from models.accounts import accounts, audit, operators
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection
from models.platform.errors import Conflict, NotFound
from pipelines.accounts import passwords

#: Where an operator's coming and going is done.
TRAIL = RequestOrigin(user_agent="sangha admin")


def create(connection: Connection, email: str, password: str) -> None:
    """A new user who is an operator. Raises InvalidRequest for a weak password, and Conflict for a known address."""
    passwords.check_strength(password, email=email)
    membership = operators.create(connection, email=email, password_hash=passwords.hash_password(password))
    if membership is None:
        raise Conflict(f"Somebody has just proved that {email} is theirs. Run this again.")
    _record(connection, "operator.created", membership.user_id)


def grant(connection: Connection, user_id: str) -> bool:
    """Make a known user an operator. Whether they were not one before; harmless to repeat."""
    appointed = operators.grant(connection, user_id)
    if appointed:
        _record(connection, "operator.created", user_id)
    return appointed


def revoke(connection: Connection, email: str) -> None:
    """Take an operator's rights, from their next request on. Raises NotFound when there is no such operator."""
    known = operators.find(connection, email)
    if known is None or not operators.revoke(connection, known[0]):
        raise NotFound(f"{email} is no operator.")
    _record(connection, "operator.revoked", known[0])


def _record(connection: Connection, action: str, user_id: str) -> None:
    """In the account where they are at home, whose admins see it."""
    homes = accounts.memberships(connection, user_id)
    account_id = homes[0].account_id if homes else None
    audit.record(connection, action, TRAIL, account_id=account_id, user_id=user_id, target=user_id)
