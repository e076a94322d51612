"""Grant and revoke the rights of operators, for `sangha admin`; no route does."""

from models.accounts import accounts, audit, operators
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection
from models.platform.errors import Conflict, NotFound
from pipelines.accounts import passwords

#: The origin in the audit log.
ORIGIN = RequestOrigin(user_agent="sangha admin")


def create(connection: Connection, email: str, password: str) -> None:
    """Create a user who is an operator. Raises InvalidRequest for a weak password, Conflict for a verified address."""
    passwords.check_strength(password, email=email)
    membership = operators.create(connection, email=email, password_hash=passwords.hash_password(password))
    if membership is None:
        raise Conflict(f"Another user has just verified {email}. Run the command again.")
    _record(connection, "operator.created", membership.user_id)


def grant(connection: Connection, user_id: str) -> bool:
    """Make a user an operator. Returns False if they were one before."""
    granted = operators.grant(connection, user_id)
    if granted:
        _record(connection, "operator.created", user_id)
    return granted


def revoke(connection: Connection, email: str) -> None:
    """Revoke an operator's rights, from their next request on. Raises NotFound if there is no such operator."""
    user = operators.find(connection, email)
    if user is None or not operators.revoke(connection, user_id := user[0]):
        raise NotFound(f"{email} is not an operator.")
    _record(connection, "operator.revoked", user_id)


def _record(connection: Connection, action: str, user_id: str) -> None:
    """Record the action in the audit log of the user's oldest account, which its admins can read."""
    memberships = accounts.memberships(connection, user_id)
    account_id = memberships[0].account_id if memberships else None
    audit.record(connection, action, ORIGIN, account_id=account_id, user_id=user_id, target=user_id)
