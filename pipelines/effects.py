"""Make a call to another system once, although its job may be attempted several times.

    declare the intent → call with the idempotency key → record the outcome

Each step commits by itself. An attempt that finds the intent of an earlier one asks the other system first whether the
call has happened. If nobody can tell, the job fails and an operator decides: `sangha effects`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

from models.jobs import effects
from models.jobs.attempt_context import Attempt
from models.jobs.effects import Effect
from models.platform.database import Connection
from models.platform.errors import EffectUnknown, PermanentFailure, Unavailable

log = logging.getLogger(__name__)

#: How long providers keep idempotency keys. Stripe: "at least 24 hours". An hour less, for the time of the call.
KEY_LIFETIME = timedelta(hours=23)

#: Seconds between two tries to record an outcome while Postgres is unavailable.
RETRY_INTERVAL = 0.25


class LookUpAnswer(Enum):
    """Answers to a look-up other than an outcome.

    NOT_FOUND  the call has had no effect, and one that is still under way will have none beside a call with this key
    UNKNOWN    the other system cannot tell
    """

    NOT_FOUND = "not_found"
    UNKNOWN = "unknown"


#: Makes the call with an idempotency key. Returns the result. Raises PermanentFailure only if the call was refused and
#: had no effect. After any other error the job's next attempt finds out what happened.
Call = Callable[[str], Mapping[str, Any]]

#: Asks for the outcome of a call by its idempotency key: the result, or, if the call was refused, a PermanentFailure,
#: which is returned and not raised. An error that another attempt may not meet, such as a lost connection, is raised.
LookUp = Callable[[str], Mapping[str, Any] | PermanentFailure | LookUpAnswer]


def perform(
    attempt: Attempt,
    step: str,
    request: Mapping[str, Any],
    call: Call,
    look_up: LookUp | None = None,
    *,
    key: str | None = None,
    key_lifetime: timedelta = KEY_LIFETIME,
) -> Mapping[str, Any]:
    """Make the call of a job's step once, and return its result; later attempts return the same result.

    request       what is sent, as JSON, the same in each attempt
    look_up       None if the other system cannot be asked
    key           the idempotency key, such as a payment's id; None: derived from the job and the step
    key_lifetime  how long the other system recognises a repeated key

    Raises PermanentFailure if the call was refused, EffectUnknown if nobody can tell whether it has happened, and
    Fenced.
    """
    attempt.check()
    with attempt.database.transaction() as connection:
        effect = effects.declare(connection, attempt.job, step, request, key=key)
    if effect.is_new:
        effect = _call(attempt, effect, call)
    elif effect.state == "intent":
        effect = _continue(attempt, effect, call, look_up, key_lifetime)
    return _outcome(effect)


def _call(attempt: Attempt, effect: Effect, call: Call) -> Effect:
    """Make the call and record its outcome. An error that leaves the outcome open leaves the intent."""
    try:
        outcome: Mapping[str, Any] | PermanentFailure = call(effect.idempotency_key)
    except PermanentFailure as failure:
        outcome = failure
    return _record_outcome(attempt, effect, outcome)


def _continue(attempt: Attempt, effect: Effect, call: Call, look_up: LookUp | None, key_lifetime: timedelta) -> Effect:
    """Find out whether an earlier attempt's call has happened. If it surely has not, make it with the same key."""
    answer = _look_up(effect, look_up)
    if not isinstance(answer, LookUpAnswer):
        return _record_outcome(attempt, effect, answer)
    if answer is LookUpAnswer.NOT_FOUND and effect.age < key_lifetime:
        return _call(attempt, effect, call)
    log.error("Step '%s' of job %s may have had its effect: see `sangha effects list`", effect.step, effect.job_id)
    return _record(attempt, lambda connection: effects.record_unknown(connection, effect.job_id, effect.step))


def _look_up(effect: Effect, look_up: LookUp | None) -> Mapping[str, Any] | PermanentFailure | LookUpAnswer:
    """Ask for the outcome. A refused look-up says nothing about the call."""
    try:
        return look_up(effect.idempotency_key) if look_up else LookUpAnswer.UNKNOWN
    except PermanentFailure as failure:
        log.warning("Step '%s' of job %s cannot be looked up: %s", effect.step, effect.job_id, failure.message)
        return LookUpAnswer.UNKNOWN


def _record_outcome(attempt: Attempt, effect: Effect, outcome: Mapping[str, Any] | PermanentFailure) -> Effect:
    if isinstance(outcome, PermanentFailure):
        error = {"code": outcome.code, "message": outcome.message}
        return _record(attempt, lambda each: effects.record_failed(each, effect.job_id, effect.step, error))
    stored = _record(attempt, lambda each: effects.record_done(each, effect.job_id, effect.step, outcome))
    if stored.state == "failed":
        log.error(
            "Step '%s' of job %s has had its effect but is recorded as failed: %s",
            effect.step, effect.job_id, outcome,
        )  # fmt: skip
    return stored


def _record(attempt: Attempt, record: Callable[[Connection], Effect]) -> Effect:
    """Record what is known. While Postgres is unavailable, try until the attempt should stop."""
    while True:
        try:
            with attempt.database.transaction() as connection:
                return record(connection)
        except Unavailable:
            if attempt.should_stop():
                raise
            time.sleep(RETRY_INTERVAL)


def _outcome(effect: Effect) -> Mapping[str, Any]:
    """Return the stored result, or raise what is stored instead."""
    if effect.state == "done":
        return effect.result or {}
    if effect.state == "failed":
        error = effect.error or {}
        raise PermanentFailure(error.get("message", "The call failed."), code=error.get("code", "server_error"))
    raise EffectUnknown(
        f"Step '{effect.step}' of {effect.job_id} may or may not have had its effect. An operator has to decide."
    )
