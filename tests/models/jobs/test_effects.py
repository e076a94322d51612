"""The records of calls to other systems."""

from dataclasses import replace

import pytest

from models.jobs import effects
from models.jobs.effects import declare, list_unknown, record_done, record_failed, record_unknown, resolve
from models.platform.database import Database
from models.platform.errors import Fenced, PermanentFailure, SanghaError

REQUEST = {"amount": "12.50", "currency": "eur"}
RESULT = {"id": "ch_1"}
ERROR = {"code": "card_declined", "message": "The card was declined."}


def declare_intent(database: Database, job, step="charge", request=REQUEST):
    with database.transaction() as connection:
        return declare(connection, job, step, request)


def record(database: Database, job, state):
    with database.transaction() as connection:
        if state == "done":
            return record_done(connection, job.id, "charge", RESULT)
        if state == "failed":
            return record_failed(connection, job.id, "charge", ERROR)
        return record_unknown(connection, job.id, "charge")


def end_job(job_store, job, state="failed"):
    job_store.update(job.id, f"state = '{state}', finished_at = now()")


def unresolved(database, account):
    with database.connection() as connection:
        return [effect.step for effect in list_unknown(connection, 1000) if effect.account_id == account]


@pytest.fixture
def job(job_store, account):
    return job_store.start(account)


def test_an_intent_is_new_once(database, job):
    first, second = declare_intent(database, job), declare_intent(database, job)

    assert (first.state, first.is_new, second.is_new) == ("intent", True, False)
    assert first.idempotency_key == second.idempotency_key


def test_an_uncommitted_intent_is_new_again(database, job):
    def fail():
        with database.transaction() as connection:
            declare(connection, job, "charge", REQUEST)
            raise SanghaError

    with pytest.raises(SanghaError):
        fail()

    assert declare_intent(database, job).is_new


def test_each_step_of_each_job_has_its_own_key(database, job_store, account, job):
    other = job_store.start(account)

    keys = {declare_intent(database, *each).idempotency_key for each in [(job,), (job, "refund"), (other,)]}

    assert len(keys) == 3


def test_the_key_of_a_step_never_changes():
    # An upgrade between two attempts must not change the key.
    assert effects.idempotency_key("job_1", "charge") == "200c6abd-b758-5637-83ad-5441054f7d06"


def test_the_order_of_a_request_s_fields_does_not_matter(database, job):
    declare_intent(database, job)

    assert not declare_intent(database, job, request=dict(reversed(REQUEST.items()))).is_new


def test_another_request_for_the_same_step_is_an_error(database, job):
    declare_intent(database, job)

    with pytest.raises(PermanentFailure, match=r"Step 'charge' of job_.* was declared before with another") as caught:
        declare_intent(database, job, request={**REQUEST, "amount": "13"})
    assert caught.value.code == "effect_changed"


def test_a_stale_attempt_declares_nothing(database, job):
    with pytest.raises(Fenced):
        declare_intent(database, replace(job, attempt=job.attempt - 1))

    with database.connection() as connection:
        assert effects.read(connection, job.id, "charge") is None


def test_outcomes_are_stored(database, job):
    declare_intent(database, job)

    done = record(database, job, "done")

    assert (done.state, done.result, done.error) == ("done", RESULT, None)
    assert declare_intent(database, job).result == RESULT


@pytest.mark.parametrize(
    ("before", "recorded", "after"),
    [
        ("unknown", "done", "done"),
        ("unknown", "failed", "failed"),
        ("done", "failed", "done"),
        ("done", "unknown", "done"),
        ("done", "done", "done"),
        ("failed", "done", "failed"),
        ("failed", "unknown", "failed"),
    ],
)
def test_only_open_effects_change(database, job, before, recorded, after):
    declare_intent(database, job)
    stored = record(database, job, before)

    result = record(database, job, recorded)

    assert result.state == after
    assert after != before or result.updated_at == stored.updated_at


def test_a_fenced_attempt_records_its_outcome(database, job_store, job):
    declare_intent(database, job)
    job_store.update(job.id, "attempt = attempt + 1")

    assert record(database, job, "done").state == "done"


def test_an_outcome_without_an_intent_is_an_error(database, job):
    with pytest.raises(LookupError, match="was not declared"):
        record(database, job, "done")


@pytest.mark.parametrize(
    ("state", "job_state", "listed"),
    [
        ("intent", "running", False),
        ("intent", "dead", True),
        ("unknown", "running", True),
        ("unknown", "failed", True),
        ("done", "failed", False),
    ],
)
def test_effects_that_only_an_operator_can_resolve_are_listed(
    database, job_store, account, job, state, job_state, listed
):
    # Given an effect, and a job that runs or has ended
    declare_intent(database, job)
    if state != "intent":
        record(database, job, state)
    if job_state != "running":
        end_job(job_store, job, job_state)

    # Then it is listed if no attempt will look it up, and only then it can be resolved
    assert unresolved(database, account) == (["charge"] if listed else [])
    with database.transaction() as connection:
        assert resolve(connection, job.id, "charge", "done", RESULT) is listed
    assert unresolved(database, account) == []


def test_an_effect_outlives_its_job(database, job_store, account, job):
    declare_intent(database, job)
    end_job(job_store, job)

    with database.connection() as connection:
        connection.execute("DELETE FROM jobs WHERE id = %s", (job.id,))

    assert unresolved(database, account) == ["charge"]


def test_a_decision_is_final(database, job):
    declare_intent(database, job)
    record(database, job, "unknown")

    with database.transaction() as connection:
        assert resolve(connection, job.id, "charge", "failed", ERROR)
        assert not resolve(connection, job.id, "charge", "done", RESULT)

    assert declare_intent(database, job).error == ERROR


def test_pages_of_unknown_effects_are_complete(empty_job_store):
    # Given five unknown effects of two jobs
    database, account = empty_job_store.database, empty_job_store.create_account()
    jobs = [empty_job_store.start(account) for _ in range(2)]
    steps = [(job.id, step) for job in jobs for step in "abc"][:5]
    for job_id, step in steps:
        declare_intent(database, next(job for job in jobs if job.id == job_id), step)
        with database.connection() as connection:
            record_unknown(connection, job_id, step)

    # When they are read in pages of two
    listed, after = [], None
    with database.connection() as connection:
        while page := list_unknown(connection, 2, after=after):
            after = (page[-1].job_id, page[-1].step)
            listed += [(effect.job_id, effect.step) for effect in page]

    # Then each is listed once, in order
    assert listed == steps
