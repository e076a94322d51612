"""The pipeline of `approval.wait`: the gate that a call waits behind until a person has decided."""

from models.jobs.attempt_context import Attempt, Outcome
from models.platform.errors import PermanentFailure


def run(attempt: Attempt) -> Outcome:
    """Return the decision on an approval: its status, and the person's text."""
    raise PermanentFailure(f"The approval of {attempt.job.id} cannot be decided.", code="not_supported")
