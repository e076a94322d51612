"""For whom the lines of a batch run: its user, with the rights that its API key had when it was created."""

from models.access.auth_context import AuthContext
from models.accounts import plans
from models.accounts.accounts import Caller, Role
from models.accounts.plans import EFFECTIVE_LIMITS
from models.accounts.residency import strictest
from models.batches.batches import Batch
from models.platform.database import Connection, fetch_one

CALLER = f"""
SELECT memberships.role, {EFFECTIVE_LIMITS} AS limits, accounts.billed_since IS NOT NULL AS billed,
       accounts.account_residency AS residency
FROM memberships
JOIN accounts ON accounts.id = memberships.account_id
JOIN plans ON plans.id = accounts.plan_id
WHERE memberships.account_id = %(account_id)s AND memberships.user_id = %(user_id)s
"""


def read(connection: Connection, batch: Batch) -> AuthContext | None:
    """Return the caller of a batch's lines and the limits of its account; None if the user has left the account."""
    row = fetch_one(connection, CALLER, {"account_id": batch.account_id, "user_id": batch.user_id})
    if row is None or batch.user_id is None:
        return None
    key, limits = batch.key_rights, plans.parse_limits(row["limits"])
    caller = Caller(batch.user_id, batch.account_id, Role(row["role"]), residency=row["residency"])
    if key is not None:
        residency = strictest(key["residency"], row["residency"])
        caller = Caller(
            batch.user_id,
            batch.account_id,
            Role(row["role"]),
            key_id=key["id"],
            memory=key["memory"],
            residency=residency,
        )
        limits = limits.within(key["models"])
    return AuthContext(caller, limits, row["billed"])
