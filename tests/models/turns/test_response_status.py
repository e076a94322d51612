"""The status of a response is its job's state, in OpenAI's terms."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from models.turns.responses import Response

RESPONSE = Response("resp_1", "acct_1", None, "job_1", None, None, "resp_1", {}, [], datetime.now(UTC))


@pytest.mark.parametrize(
    ("state", "attempt", "status"),
    [
        ("scheduled", 0, "queued"),
        ("queued", 0, "queued"),
        ("running", 1, "in_progress"),
        ("waiting", 1, "in_progress"),
        ("scheduled", 1, "in_progress"),
        ("queued", 1, "in_progress"),
        ("completed", 1, "completed"),
        ("failed", 1, "failed"),
        ("dead", 5, "failed"),
        ("cancelled", 0, "cancelled"),
    ],
)
def test_status_is_queued_before_the_first_attempt_and_in_progress_between_attempts(state, attempt, status):
    assert replace(RESPONSE, job_state=state, job_attempt=attempt).status == status
