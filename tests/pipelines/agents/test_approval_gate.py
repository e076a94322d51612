"""The job that a turn waits for until a call is decided: it ends with the decision, or with none after the expiry."""

import pytest

from models.accounts.audit import RequestOrigin
from models.accounts.ownership import Access
from models.agents import approvals as stored
from models.platform.errors import PermanentFailure, Released
from pipelines.agents import approval_gate, approvals
from pipelines.agents.approval_decisions import Decision, decide
from tests.web.approval_requests import request_approval


@pytest.fixture
def approval(database, caller, start):
    return request_approval(database, caller.account_id, start().id, waits=True)


@pytest.fixture
def run(begin, settle):
    """`run(approval)` → the result of an attempt at its gate's job."""

    def run(approval):
        attempt = begin(approvals.gate_job(approval))
        ending = approval_gate.run(attempt)
        settle(attempt, ending)
        return ending.result

    return run


@pytest.mark.parametrize(("approve", "status"), [(True, "approved"), (False, "denied")])
def test_it_ends_with_the_decision_also_after_a_restart(database, caller, approval, begin, run, approve, status):
    # Given a decision, and a worker that has died after it claimed the job
    decide(database, caller, approval.id, Decision(approve, "because"), RequestOrigin())
    begin(approvals.gate_job(approval))
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'queued', claim_id = NULL WHERE id = %s", (approval.gate_job_id,))

    # When
    result = run(approval)

    # Then
    assert result == {"status": status, "text": "because"}


def test_it_ends_as_expired_where_nobody_has_decided_in_time(database, caller, start, run):
    approval = request_approval(database, caller.account_id, start().id, waits=True, expires_in=-1)

    assert run(approval) == {"status": "expired", "text": None}

    with database.connection() as connection:
        row = connection.execute("SELECT status, decided_at FROM approvals WHERE id = %s", (approval.id,)).fetchone()
    assert (row["status"], row["decided_at"]) == ("expired", approval.expires_at)


def test_it_waits_on_where_it_runs_early(approval, begin):
    with pytest.raises(Released) as released:
        approval_gate.run(begin(approvals.gate_job(approval)))

    assert 3_500 < released.value.delay <= 3_600


def test_it_fails_where_the_approval_was_deleted(database, approval, begin):
    with database.connection() as connection:
        stored.delete_of_response(connection, approval.response_id, approval.account_id)

    with pytest.raises(PermanentFailure, match="was deleted"):
        approval_gate.run(begin(approvals.gate_job(approval)))


def test_a_decision_during_the_last_attempt_is_refused(database, caller, approval, begin):
    begin(approvals.gate_job(approval))

    with database.transaction() as connection:
        decided = stored.decide(connection, approval, approve=True, user_id=caller.user_id, text=None)

    assert not decided, "the job runs already, and would not see it"


def test_pruning_marks_what_has_expired_and_deletes_what_belongs_to_no_response(database, caller, start):
    # Given
    response = start()
    expired, kept, orphan = (
        request_approval(database, caller.account_id, response.id, waits=False, expires_in=seconds)
        for seconds in (-1, 60, -200_000)
    )
    with database.connection() as connection:
        connection.execute("UPDATE approvals SET response_id = 'resp_deleted' WHERE id = %s", (orphan.id,))

    # When
    for _ in range(2):
        with database.transaction() as connection:
            stored.prune(connection, 500)

    # Then
    with database.connection() as connection:
        rows = stored.page(connection, Access.account(caller.account_id))
        raw = connection.execute("SELECT status FROM approvals WHERE id = %s", (expired.id,)).fetchone()
    assert {row.id for row in rows} == {expired.id, kept.id}
    assert raw["status"] == "expired"
