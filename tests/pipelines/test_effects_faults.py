"""Processes die at any point of a call that must not happen twice, in several attempts, also in two at once.

A provider that can be asked sees one effect in every case. One that cannot be asked sees at most one, and the job's end
says which: the result, or `effect_unknown`.
"""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from models.jobs import effects
from models.jobs.jobs import NewJob
from models.platform.errors import PermanentFailure
from pipelines.effects import perform
from tests.pipelines.effect_provider import ConnectionLost, Crash, CrashingDatabase, Provider

REQUEST = {"amount": "12.50", "currency": "eur"}


@dataclass(frozen=True)
class Fault:
    """Where an attempt ends. `overtaken`: a further attempt runs to its end at that point, and this one continues."""

    point: str
    overtaken: bool = False


#: Points at which the process dies, in the order of an attempt.
CRASHES = (
    "before declare commit",
    "after declare commit",
    "before sending",
    "after the effect",
    "before record commit",
    "after record commit",
    "before END",
)

#: Points at which the call raises an error, so that the job is retried.
ERRORS = ("error before sending", "answer lost")

#: Points inside the call at which another worker takes the job over while this one is alive.
TAKEOVERS = ("before sending", "after the effect")

FAULTS = st.sampled_from([Fault(point) for point in CRASHES + ERRORS] + [Fault(point, True) for point in TAKEOVERS])

REPRODUCIBLE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.mark.timeout(600)
@settings(max_examples=120, **REPRODUCIBLE)
@given(faults=st.lists(FAULTS, max_size=5), refuses=st.booleans())
def test_a_provider_that_can_be_asked_sees_one_effect(database, account, begin, faults, refuses):
    # Given attempts that end at the drawn points
    provider, job = Provider(refuses=refuses), NewJob("email.send", account)
    for fault in faults:
        run_faulty(begin, job, provider, fault, provider.look_up)

    # When an attempt runs to its end
    outcome = run(begin(job), provider, provider.look_up)

    # Then the effect happened once, and its outcome is known
    event(f"{len(provider.calls)} calls")
    assert len(provider.outcomes) == len(set(provider.calls)) == 1
    assert provider.effects == (0 if refuses else 1)
    assert outcome == ("card_declined" if refuses else {"id": "ch_1"})
    assert stored_state(database, job) == ("failed" if refuses else "done")


@pytest.mark.timeout(600)
@settings(max_examples=120, **REPRODUCIBLE)
@given(faults=st.lists(FAULTS, max_size=4))
def test_a_provider_that_cannot_be_asked_sees_at_most_one_call(database, account, begin, faults):
    # Given attempts that end at the drawn points, and a provider that knows no keys
    provider, job = ForgetfulProvider(), NewJob("email.send", account)
    for fault in faults:
        run_faulty(begin, job, provider, fault, None)

    # When an attempt runs to its end
    outcome = run(begin(job), provider, None)

    # Then the call was made once at most, and the job either has the result or knows that it does not know
    event(str(outcome))
    assert len(provider.calls) <= 1
    assert stored_state(database, job) == ("unknown" if outcome == "effect_unknown" else "done")
    if outcome != "effect_unknown":
        assert (outcome, provider.effects) == ({"id": "ch_1"}, 1)


class ForgetfulProvider(Provider):
    """A provider without idempotency keys: each call has an effect."""

    def call(self, key):
        return super().call(f"{key} {len(self.calls)}")


def run(attempt, provider, look_up):
    """Run an attempt to its end. Returns the result or the code of the failure."""
    try:
        return perform(attempt, "charge", REQUEST, provider.call, look_up)
    except PermanentFailure as failure:
        return failure.code


def run_faulty(begin, job, provider, fault, look_up):
    """Run an attempt until its fault. An attempt that does not get to that point runs to its end."""
    attempt = begin(job)
    number, committed = {
        "before declare commit": (0, False),
        "after declare commit": (0, True),
        "before record commit": (1, False),
        "after record commit": (1, True),
    }.get(fault.point, (-1, False))
    attempt.database = CrashingDatabase(attempt.database, number, committed=committed)

    def interrupt(point):
        if fault.overtaken and fault.point == point:
            run(begin(job), provider, look_up)
        elif fault.point == point:
            raise Crash

    def call(key):
        interrupt("before sending")
        if fault.point == "error before sending":
            raise ConnectionRefusedError
        try:
            return provider.call(key)
        finally:
            interrupt("after the effect")
            if fault.point == "answer lost":
                raise ConnectionLost

    try:
        perform(attempt, "charge", REQUEST, call, look_up)
        interrupt("before END")
    except (Crash, ConnectionLost, ConnectionRefusedError, PermanentFailure):
        pass


def stored_state(database, job):
    with database.connection() as connection:
        return effects.read(connection, job.id, "charge").state
