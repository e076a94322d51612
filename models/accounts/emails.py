"""The e-mail addresses of users. Several users may have an unverified address; only one can verify it."""

from dataclasses import dataclass
from datetime import datetime

from models.accounts.accounts import DEFAULT_PLAN, UNVERIFIED_PLAN
from models.platform.database import Connection, fetch_one
from models.platform.ids import new_id


@dataclass(frozen=True, slots=True)
class UserProfile:
    """The name, the e-mail address and the flags of a user."""

    id: str
    email: str
    name: str
    email_verified_at: datetime | None
    operator: bool

    @property
    def verified(self) -> bool:
        """Whether the address is verified."""
        return self.email_verified_at is not None


READ = "SELECT id, email, name, email_verified_at, operator FROM users WHERE id = %(id)s"


def read_user(connection: Connection, user_id: str) -> UserProfile | None:
    """Return a user by id."""
    row = fetch_one(connection, READ, {"id": user_id})
    return UserProfile(**row) if row else None


OWNER = """
SELECT id, email, name, email_verified_at, operator FROM users
WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def find_owner(connection: Connection, email: str) -> UserProfile | None:
    """Return the user who has verified the address."""
    row = fetch_one(connection, OWNER, {"email": email})
    return UserProfile(**row) if row else None


# Serialises changes of one address, so that two users do not violate its unique index.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('address ' || lower(%(email)s), 0))"


def lock(connection: Connection, email: str) -> None:
    """Lock the address until the transaction ends, so that no concurrent request signs up with it or verifies it."""
    connection.execute(LOCK, {"email": email})


VERIFY = """
UPDATE users SET email_verified_at = now()
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NULL
  AND NOT EXISTS (SELECT FROM users WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL)
"""

# The accounts that the user owns leave the plan of unverified users.
LEAVE_UNVERIFIED_PLAN = """
UPDATE accounts SET plan_id = %(default_plan)s FROM memberships
WHERE memberships.account_id = accounts.id AND memberships.user_id = %(user_id)s AND memberships.role = 'owner'
  AND accounts.plan_id = %(unverified_plan)s
"""

OWNS = """
SELECT FROM users
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def verify(connection: Connection, user_id: str, email: str) -> bool:
    """Verify the address of a user, unless another user has verified it. Returns whether it is the user's now.
    Idempotent.

    Other users with this address are kept, but can no longer log in with it. The user's accounts get the default plan.
    """
    parameters = {"user_id": user_id, "email": email}
    lock(connection, email)
    connection.execute(VERIFY, parameters)
    if not owns(connection, user_id, email):
        return False
    plans = {"default_plan": DEFAULT_PLAN, "unverified_plan": UNVERIFIED_PLAN}
    connection.execute(LEAVE_UNVERIFIED_PLAN, {**parameters, **plans})
    return True


# A process of an earlier version verifies an address without a change of plan.
LEAVE_UNVERIFIED_PLAN_LATE = """
UPDATE accounts SET plan_id = %(default_plan)s WHERE id IN (
    SELECT accounts.id FROM accounts
    JOIN memberships ON memberships.account_id = accounts.id AND memberships.role = 'owner'
    JOIN users ON users.id = memberships.user_id AND email_verified_at IS NOT NULL
    WHERE plan_id = %(unverified_plan)s LIMIT %(batch)s)
"""


def leave_unverified_plan(connection: Connection, batch: int) -> int:
    """Give the default plan to at most `batch` accounts that a verified user owns. Returns to how many."""
    plans = {"default_plan": DEFAULT_PLAN, "unverified_plan": UNVERIFIED_PLAN}
    return connection.execute(LEAVE_UNVERIFIED_PLAN_LATE, {**plans, "batch": batch}).rowcount


def owns(connection: Connection, user_id: str, email: str) -> bool:
    """Return whether the user has verified the address and still has it."""
    return fetch_one(connection, OWNS, {"user_id": user_id, "email": email}) is not None


CREATE = """
INSERT INTO users (id, email, name, password_hash, email_verified_at)
VALUES (%(id)s, %(email)s, %(name)s, %(password_hash)s, now())
"""


def create_verified_user(
    connection: Connection, email: str, *, name: str, password_hash: str | None
) -> UserProfile | None:
    """Create a user with a verified address. Returns None if another user has verified it meanwhile."""
    user_id = new_id("user")
    lock(connection, email)
    if find_owner(connection, email) is not None:
        return None
    connection.execute(CREATE, {"id": user_id, "email": email, "name": name, "password_hash": password_hash})
    return read_user(connection, user_id)


RENAME = "UPDATE users SET name = %(name)s WHERE id = %(id)s"


def rename(connection: Connection, user_id: str, name: str) -> None:
    """Rename a user."""
    connection.execute(RENAME, {"id": user_id, "name": name})
