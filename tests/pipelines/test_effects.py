"""Given a call that must not happen twice, when its job is attempted several times, then it happens once."""

from contextlib import contextmanager
from datetime import timedelta

import pytest

from models.jobs import effects
from models.jobs.jobs import NewJob
from models.platform.errors import EffectUnknown, Fenced, PermanentFailure, Unavailable
from pipelines import effects as runner
from pipelines.effects import LookUpAnswer, perform
from tests.pipelines.effect_provider import ConnectionLost, Provider

REQUEST = {"amount": "12.50", "currency": "eur"}


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def job(account):
    return NewJob("email.send", account)


def charge(attempt, provider, **options):
    return perform(attempt, "charge", REQUEST, provider.call, provider.look_up, **options)


def lose_the_answer(provider):
    """Return a call that performs the effect, and whose answer does not arrive."""

    def call(key):
        provider.call(key)
        raise ConnectionLost

    return call


def refuse_connection(key):
    raise ConnectionRefusedError


def attempt_without_answer(begin, job, provider):
    """Leave an intent whose call was performed."""
    with pytest.raises(ConnectionLost):
        perform(begin(job), "charge", REQUEST, lose_the_answer(provider), provider.look_up)


def stored(database, job):
    with database.connection() as connection:
        return effects.read(connection, job.id, "charge")


def test_a_first_call_is_made_without_a_look_up(begin, job, provider):
    assert charge(begin(job), provider) == {"id": "ch_1"}

    assert (provider.effects, provider.look_ups) == (1, [])


def test_a_later_attempt_gets_the_stored_result(begin, job, provider):
    charge(begin(job), provider)

    assert charge(begin(job), provider) == {"id": "ch_1"}

    assert len(provider.calls) == 1


def test_the_intent_is_committed_before_the_call(database, begin, job):
    seen = []

    def call(key):
        seen.append(stored(database, job))
        return {}

    perform(begin(job), "charge", REQUEST, call)

    assert [(effect.state, effect.idempotency_key) for effect in seen] == [
        ("intent", effects.idempotency_key(job.id, "charge"))
    ]


def test_a_refused_call_fails_every_attempt_the_same_way(begin, job):
    provider = Provider(refuses=True)

    for _ in range(2):
        with pytest.raises(PermanentFailure, match=r"The card was declined\.") as caught:
            charge(begin(job), provider)
        assert caught.value.code == "card_declined"

    assert len(provider.calls) == 1


def test_a_call_whose_answer_was_lost_is_looked_up_and_not_repeated(begin, job, provider):
    attempt_without_answer(begin, job, provider)

    assert charge(begin(job), provider) == {"id": "ch_1"}

    assert len(provider.calls) == 1


def test_a_refusal_whose_answer_was_lost_is_looked_up(database, begin, job):
    provider = Provider(refuses=True)

    def call(key):
        with pytest.raises(PermanentFailure):
            provider.call(key)
        raise ConnectionLost

    with pytest.raises(ConnectionLost):
        perform(begin(job), "charge", REQUEST, call, provider.look_up)

    with pytest.raises(PermanentFailure, match=r"The card was declined\."):
        charge(begin(job), provider)
    assert stored(database, job).state == "failed"


def test_a_call_that_was_never_sent_is_made_by_the_next_attempt_with_the_same_key(begin, job, provider):
    with pytest.raises(ConnectionRefusedError):
        perform(begin(job), "charge", REQUEST, refuse_connection, provider.look_up)

    assert charge(begin(job), provider) == {"id": "ch_1"}

    key = effects.idempotency_key(job.id, "charge")
    assert (provider.look_ups, provider.calls) == ([key], [key])


def say_unknown(key):
    return LookUpAnswer.UNKNOWN


def refuse_look_up(key):
    raise PermanentFailure("This API key has been revoked.")


@pytest.mark.parametrize("look_up", [None, say_unknown, refuse_look_up])
def test_a_call_that_cannot_be_looked_up_is_left_to_an_operator(database, begin, job, provider, look_up):
    # Given a call whose answer was lost
    attempt_without_answer(begin, job, provider)

    # When nobody can tell whether it has happened, now and in later attempts
    for _ in range(2):
        with pytest.raises(EffectUnknown, match=f"Step 'charge' of {job.id} may or may not") as caught:
            perform(begin(job), "charge", REQUEST, provider.call, look_up)
        assert caught.value.code == "effect_unknown"

    # Then it is not repeated
    assert stored(database, job).state == "unknown"
    assert provider.effects == len(provider.calls) == 1


def test_a_look_up_that_cannot_reach_the_provider_is_left_to_the_next_attempt(database, begin, job, provider):
    attempt_without_answer(begin, job, provider)

    with pytest.raises(ConnectionRefusedError):
        perform(begin(job), "charge", REQUEST, provider.call, refuse_connection)
    assert stored(database, job).state == "intent"

    assert charge(begin(job), provider) == {"id": "ch_1"}
    assert len(provider.calls) == 1


def test_a_call_older_than_the_provider_keeps_keys_is_not_repeated(database, begin, job, provider):
    # Given an intent from before the provider's keys, whose call is not found
    with pytest.raises(ConnectionRefusedError):
        perform(begin(job), "charge", REQUEST, refuse_connection, provider.look_up)

    # Then an operator decides
    with pytest.raises(EffectUnknown):
        charge(begin(job), provider, key_lifetime=timedelta(0))
    assert stored(database, job).state == "unknown"
    assert provider.calls == []


def test_an_old_call_that_is_found_is_recorded(begin, job, provider):
    attempt_without_answer(begin, job, provider)

    assert charge(begin(job), provider, key_lifetime=timedelta(0)) == {"id": "ch_1"}


@pytest.mark.parametrize("decision", ["done", "failed"])
def test_an_attempt_after_an_operators_decision_follows_it(database, begin, job, provider, decision):
    # Given an unknown effect that an operator has resolved
    attempt_without_answer(begin, job, provider)
    with pytest.raises(EffectUnknown):
        perform(begin(job), "charge", REQUEST, provider.call)
    outcome = {"id": "ch_7"} if decision == "done" else {"code": "refused", "message": "It was never charged."}
    with database.transaction() as connection:
        assert effects.resolve(connection, job.id, "charge", decision, outcome)

    # When the job runs again, then it has the decided outcome
    if decision == "done":
        assert charge(begin(job), provider) == {"id": "ch_7"}
    else:
        with pytest.raises(PermanentFailure, match=r"It was never charged\."):
            charge(begin(job), provider)
    assert len(provider.calls) == 1


def test_an_attempt_that_should_stop_makes_no_call(begin, job, provider):
    attempt = begin(job)
    attempt.stop("overtaken")

    with pytest.raises(Fenced):
        charge(attempt, provider)

    assert provider.calls == []


def test_a_fenced_attempt_makes_no_call(begin, job, provider):
    stale = begin(job)
    begin(job)

    with pytest.raises(Fenced):
        charge(stale, provider)

    assert provider.calls == []


def test_an_outcome_is_recorded_when_postgres_is_back(begin, job, provider, monkeypatch):
    # Given an attempt that cannot record its outcome the first two times
    monkeypatch.setattr(runner, "RETRY_INTERVAL", 0)
    attempt = begin(job)
    attempt.database = OutageDatabase(attempt.database, outages=2)

    # Then it records it at the third
    assert charge(attempt, provider) == {"id": "ch_1"}
    assert len(provider.calls) == 1


def test_an_attempt_that_should_stop_does_not_wait_for_postgres(begin, job, provider):
    # Given an outage that lasts, and a worker that stops during the call
    attempt = begin(job)
    attempt.database = OutageDatabase(attempt.database, outages=1000)

    def call(key):
        attempt.stop("released")
        return provider.call(key)

    # Then the attempt ends, and the next one looks up the outcome
    with pytest.raises(Unavailable):
        perform(attempt, "charge", REQUEST, call)
    assert charge(begin(job), provider) == {"id": "ch_1"}
    assert len(provider.calls) == 1


class OutageDatabase:
    """A database that is unavailable for some transactions after the first."""

    def __init__(self, database, outages):
        self.database = database
        self.outages = outages
        self.declared = False

    @contextmanager
    def transaction(self):
        if self.declared and self.outages:
            self.outages -= 1
            raise Unavailable("The database is unavailable.")
        self.declared = True
        with self.database.transaction() as connection:
            yield connection


def test_a_late_success_after_a_decision_is_reported(database, begin, job, provider, caplog):
    # Given an attempt whose call is still under way when a later one gives up and an operator decides that it failed
    def call(key):
        with pytest.raises(EffectUnknown):
            perform(begin(job), "charge", REQUEST, provider.call)
        with database.transaction() as connection:
            assert effects.resolve(connection, job.id, "charge", "failed", {"code": "x", "message": "Never charged."})
        return provider.call(key)

    # When the call succeeds after all, then the decision stays and the contradiction is logged
    with pytest.raises(PermanentFailure, match=r"Never charged\."):
        perform(begin(job), "charge", REQUEST, call)
    assert "has had its effect but is recorded as failed" in caplog.text


@pytest.mark.parametrize("moment", ["before", "after"])
def test_of_two_attempts_at_once_only_one_has_an_effect(database, begin, job, provider, moment):
    # Given a worker whose call is under way when another one takes the job over
    results = []

    def call(key):
        if moment == "after":
            provider.call(key)
        results.append(charge(begin(job), provider))
        return provider.call(key)

    # When both finish their calls
    results.append(perform(begin(job), "charge", REQUEST, call, provider.look_up))

    # Then the effect happened once, and both know its result
    assert results == [{"id": "ch_1"}] * 2
    assert provider.effects == 1
    assert stored(database, job).result == {"id": "ch_1"}
