"""An approval is decided at most once, whatever decisions, ends and restarts come in which order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.accounts.ownership import Access
from models.agents import approvals
from models.agents.approvals import Approval
from models.jobs import attempts
from models.jobs.cancellation import cancel
from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id

FINAL = {"approved", "denied", "expired", "cancelled"}


class Request:
    """A request for approval with its rows, and what may happen to it."""

    def __init__(self, database, account, *, waits):
        self.database, self.account = database, account
        self.job_id = new_id("job") if waits else None
        later = datetime.now(UTC) + timedelta(hours=1)
        self.approval = Approval(
            id=new_id("mcpr"), account_id=account, user_id="user_1", response_id=new_id("resp"),
            gate_job_id=self.job_id, reason="policy", server_label="docs", tool_name="send", arguments="{}",
            agent_name=None, status="pending", decided_by=None, decision_text=None, created_at=datetime.now(UTC),
            decided_at=None, expires_at=later,
        )  # fmt: skip
        with database.transaction() as connection:
            approvals.insert(connection, self.approval)
            if waits:
                enqueue(connection, NewJob("approval.wait", account, {}, id=self.job_id, run_at=later))

    def decide(self, approve, user):
        """Decide through the API. Returns whether it counted."""
        with self.database.transaction() as connection:
            decided = self.job_id is not None and approvals.decide(
                connection, self.approval, approve=approve, user_id=user, text=None
            )
            if not decided:
                connection.execute("ROLLBACK")
                connection.execute("BEGIN")
        return decided

    def take(self, approve, response_id):
        """Decide with the input of a turn. Returns whether it counted."""
        access = Access(self.account, "user_1", unowned=False)
        with self.database.transaction() as connection:
            return approvals.take(connection, self.approval.id, access, approve=approve, user_id="user_1", text=None,
                                  answered_in=response_id)  # fmt: skip

    def pass_time(self):
        with self.database.connection() as connection:
            connection.execute("UPDATE approvals SET expires_at = now() WHERE id = %s", (self.approval.id,))

    def expire(self):
        with self.database.connection() as connection:
            approvals.expire(connection, self.approval.id, self.account)

    def prune(self):
        with self.database.transaction() as connection:
            approvals.prune(connection, 500)

    def end_turn(self):
        with self.database.transaction() as connection:
            approvals.cancel_waiting(connection, self.approval.response_id)

    def cancel_gate(self):
        if self.job_id is not None:
            with self.database.transaction() as connection:
                cancel(connection, self.job_id, self.account)

    def claim_gate(self):
        if self.job_id is not None:
            with self.database.connection() as connection:
                attempts.claim(connection, self.job_id, message_id=new_id("message"), worker=new_id("worker"))

    def row(self):
        with self.database.connection() as connection:
            return approvals.read(connection, self.approval.id, Access.account(self.account))

    def gate_is_due(self):
        with self.database.connection() as connection:
            row = connection.execute(
                "SELECT state <> 'scheduled' AND run_at <= now() AS due FROM jobs WHERE id = %s", (self.job_id,)
            ).fetchone()
        return bool(row and row["due"])


BOOLEANS, NUMBERS = st.booleans(), st.integers(1, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), BOOLEANS, NUMBERS.map("user_{}".format)),
        st.tuples(st.just("take"), BOOLEANS, NUMBERS.map("resp_{}".format)),
        st.sampled_from([(name,) for name in (
            "pass_time", "expire", "prune", "end_turn", "cancel_gate", "claim_gate",
        )]),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waits=BOOLEANS, steps=STEPS)
def test_the_first_decision_counts_and_nothing_changes_it(database, account, waits, steps):
    request = Request(database, account, waits=waits)
    counted, before = [], request.row()
    for name, *arguments in steps:
        result = getattr(request, name)(*arguments)
        after = request.row()

        if name in ("decide", "take") and result:
            counted.append((name, *arguments))
            assert after.status == ("approved" if arguments[0] else "denied")
        if before.status in FINAL:
            repeated = name == "take" and arguments[1] == before.answered_in
            assert after.status == before.status or repeated, "only a repeat of the same request takes it again"
            assert (after.decided_by, after.answered_in) == (before.decided_by, before.answered_in)
        if name == "decide" and result:
            assert request.gate_is_due(), "the decision and the job become visible together"
        before = after

    deciders = {(name, arguments[1]) for name, *arguments in counted}
    assert len(deciders) <= 1, "one person, or one turn"
    assert {name for name, _ in deciders} <= {"decide" if waits else "take"}


@pytest.mark.parametrize("other", ["another user", None])
def test_a_turn_of_another_user_takes_nothing(database, account, other):
    request = Request(database, account, waits=False)

    with database.transaction() as connection:
        access = Access(account, other, unowned=True) if other else Access("acct_other", "user_1", unowned=True)
        taken = approvals.take(connection, request.approval.id, access, approve=True, user_id="x", text=None,
                               answered_in="resp_1")  # fmt: skip

    assert not taken
    assert request.row().status == "pending"


def test_an_approval_is_one_event_also_if_it_is_inserted_again(database, account, events_of):
    approval = Request(database, account, waits=True).approval
    with database.transaction() as connection:
        approvals.insert(connection, approval)

    data = {"id": approval.id, "response_id": approval.response_id}
    assert events_of(account) == [("approval.requested", data)]
