"""Build the jobs that follow the end of a turn: remember it, and later extract facts from it."""

from datetime import datetime

from models.jobs.jobs import NewJob
from models.memory import facts
from models.memory.spaces import SpaceKey
from models.turns.responses import Response

REMEMBER = "memory.remember"


def remember_turn_job(response: Response) -> NewJob | None:
    """Build the job that remembers an ended turn; None if the turn is not to be remembered."""
    if response.user_id is None or not response.unremembered:
        return None
    return remember_user_job(response.account_id, response.user_id)


def remember_user_job(account_id: str, user_id: str) -> NewJob:
    """Build the job that remembers all of a user's ended turns, each in its space.

    It is inserted unless one is queued already.
    """
    serial_key = f"{REMEMBER} {account_id} {user_id}"
    return NewJob(REMEMBER, account_id, {"user_id": user_id}, serial_key=serial_key, coalesce=True, owner_id=user_id)


def extract_facts_job(key: SpaceKey, run_at: datetime) -> NewJob:
    """Build the job that extracts facts from a space's conversations. It is inserted unless one is queued already."""
    return NewJob(
        facts.EXTRACT_KIND,
        key.account_id,
        key.arguments,
        run_at=run_at,
        serial_key=f"{facts.EXTRACT_KIND} {key.lane}",
        coalesce=True,
        owner_id=key.user_id,
    )
