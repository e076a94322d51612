"""Create a user with an account of their own, which has the example agent."""

from models.accounts import accounts
from models.accounts.accounts import DEFAULT_PLAN, Membership
from models.platform.database import Connection
from pipelines.agents import example_agent


def create(connection: Connection, *, email: str, password_hash: str | None, plan_id: str = DEFAULT_PLAN) -> Membership:
    """Create a user who owns a new account."""
    membership = accounts.create(connection, email=email, password_hash=password_hash, plan_id=plan_id)
    example_agent.create(connection, membership.account_id, membership.user_id)
    return membership
