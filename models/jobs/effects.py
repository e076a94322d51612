"""Calls to other systems that must not happen twice: one row per step of a job.

    declare ──► intent ──► done
                  │ ├────► failed       the other system refused
                  │ └────► unknown ──► done | failed      after a look-up, or by an operator
                  └──────────────────► done | failed      by an operator, once the job has ended

The intent is committed before the call, so that a later attempt knows that the call may have happened.
`pipelines/effects.py` makes the calls.
"""

import hashlib
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
from psycopg.types.json import Jsonb

from models.jobs.attempts import lock_job
from models.jobs.jobs import Job
from models.jobs.replayable import REPLAYABLE
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import PermanentFailure
from models.platform.records import columns

EffectState = Literal["intent", "done", "failed", "unknown"]

#: Days that ended effects are kept, for operators and for jobs that are replayed.
KEPT_DAYS = 90

#: The error's code of a call that an earlier attempt has declared with another request.
EFFECT_CHANGED = "effect_changed"

#: The namespace of the idempotency keys. Never change it: a job that is repeated must send the same key.
KEYS = uuid.UUID("9b1f6f0e-6f0c-5a53-9d5e-1f6a0c1b7a54")


@dataclass(frozen=True, slots=True)
class Effect:
    """A row of `effects`.

    result  what the other system answered, if it is done
    error   `{"code", "message"}`, if it failed
    age     the time since the intent was declared
    is_new  whether this statement declared it: no call can have been made
    """

    job_id: str
    step: str
    account_id: str
    idempotency_key: str
    request_hash: str
    state: EffectState
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    age: timedelta
    is_new: bool = False


COLUMNS = columns(Effect, omit=("age", "is_new")) + ", now() - created_at AS age"

INSERT = f"""
INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash)
VALUES (%(job_id)s, %(step)s, %(account_id)s, %(idempotency_key)s, %(request_hash)s)
ON CONFLICT (job_id, step) DO NOTHING
RETURNING {COLUMNS}, true AS is_new
"""

READ = f"SELECT {COLUMNS} FROM effects WHERE job_id = %(job_id)s AND step = %(step)s"


def declare(
    connection: Connection, job: Job, step: str, request: Mapping[str, Any], *, key: str | None = None
) -> Effect:
    """Insert the intent of a call, or return the effect that an earlier attempt declared. Commit it before the call.

    request  what is sent, as JSON. Each attempt must declare the same: raises PermanentFailure otherwise
    key      the idempotency key, the same in each attempt; None: derived from the job and the step

    Raises Fenced if a newer attempt exists.
    """
    lock_job(connection, job)
    row = fetch_one(
        connection,
        INSERT,
        {
            "job_id": job.id,
            "step": step,
            "account_id": job.account_id,
            "idempotency_key": key or idempotency_key(job.id, step),
            "request_hash": _hash(request),
        },
    )
    effect = Effect(**row) if row else _require(connection, job.id, step)
    if effect.request_hash != _hash(request):
        message = f"Step '{step}' of {job.id} was declared before with another request, so it is not repeated."
        raise PermanentFailure(message, code=EFFECT_CHANGED)
    return effect


def idempotency_key(job_id: str, step: str) -> str:
    """Return the key of a step: the same in every attempt."""
    return str(uuid.uuid5(KEYS, f"{job_id} {step}"))


def _hash(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(request), option=orjson.OPT_SORT_KEYS)).hexdigest()


def read(connection: Connection, job_id: str, step: str) -> Effect | None:
    """Return the effect of a job's step."""
    row = fetch_one(connection, READ, {"job_id": job_id, "step": step})
    return Effect(**row) if row else None


RECORD = f"""
UPDATE effects SET state = %(state)s, result = %(result)s, error = %(error)s, updated_at = now()
WHERE job_id = %(job_id)s AND step = %(step)s AND state = ANY(%(from_states)s)
RETURNING {COLUMNS}
"""


def record_done(connection: Connection, job_id: str, step: str, result: Mapping[str, Any]) -> Effect:
    """Record the answer to a call. Returns the effect as it is stored: an earlier record is not changed.

    This is not fenced: a stale attempt knows, too, whether its call has happened.
    """
    return _record(connection, job_id, step, "done", ("intent", "unknown"), result=result)


def record_failed(connection: Connection, job_id: str, step: str, error: Mapping[str, Any]) -> Effect:
    """Record that the other system refused the call, with `{"code", "message"}`. Otherwise like `record_done`."""
    return _record(connection, job_id, step, "failed", ("intent", "unknown"), error=error)


def record_unknown(connection: Connection, job_id: str, step: str) -> Effect:
    """Record that it cannot be determined whether the call has happened. Otherwise like `record_done`."""
    return _record(connection, job_id, step, "unknown", ("intent",))


RECORD_IF_DECLARED = """
UPDATE effects SET state = 'done', result = %(result)s, error = NULL, updated_at = now()
WHERE job_id = %(job_id)s AND step = %(step)s AND state IN ('intent', 'unknown')
"""


def record_if_declared(connection: Connection, job_id: str, step: str, result: Mapping[str, Any]) -> None:
    """Record an answer that arrived by another way, such as a webhook. Does nothing unless the call was declared."""
    connection.execute(RECORD_IF_DECLARED, {"job_id": job_id, "step": step, "result": Jsonb(dict(result))})


def _record(
    connection: Connection,
    job_id: str,
    step: str,
    state: EffectState,
    from_states: Collection[str],
    *,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> Effect:
    parameters = {**_outcome(state, result, error), "job_id": job_id, "step": step, "from_states": list(from_states)}
    row = fetch_one(connection, RECORD, parameters)
    return Effect(**row) if row else _require(connection, job_id, step)


def _outcome(
    state: EffectState, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None
) -> dict[str, object]:
    return {
        "state": state,
        "result": Jsonb(result) if result is not None else None,
        "error": Jsonb(error) if error is not None else None,
    }


def _require(connection: Connection, job_id: str, step: str) -> Effect:
    effect = read(connection, job_id, step)
    if effect is None:
        raise LookupError(f"step '{step}' of {job_id} was not declared")
    return effect


DROP_RESULTS = "UPDATE effects SET result = '{}' WHERE job_id = %(job_id)s AND state = 'done'"


def drop_results(connection: Connection, job_id: str) -> None:
    """Delete what the other systems answered, in the transaction that ends the job: no attempt follows that needs it.

    For answers with texts of an account's users, which are deleted with the job.
    """
    connection.execute(DROP_RESULTS, {"job_id": job_id})


CLOSE_INTENTS = """
UPDATE effects SET state = 'failed', error = %(error)s, updated_at = now()
WHERE job_id = %(job_id)s AND state = 'intent'
"""


def close_intents(connection: Connection, job_id: str, error: Mapping[str, Any]) -> None:
    """Record the open calls of a job that ends as failed: no attempt follows that would look them up."""
    connection.execute(CLOSE_INTENTS, {"job_id": job_id, "error": Jsonb(error)})


#: What the steps of tools' calls begin with. People of the account decide about those in doubt, and not operators.
TOOL_CALL = "tool.call"

# Effects that only an operator can resolve: an intent whose job has ended will not be looked up by another attempt.
UNRESOLVED = f"""
(NOT starts_with(step, '{TOOL_CALL}') AND (state = 'unknown' OR state = 'intent' AND NOT EXISTS (
    SELECT FROM jobs WHERE jobs.id = effects.job_id AND jobs.finished_at IS NULL)))
"""

LIST_UNKNOWN = f"""
SELECT {COLUMNS} FROM effects
WHERE state IN ('intent', 'unknown') AND {UNRESOLVED}
  AND (%(job_id)s::text IS NULL OR (job_id, step) > (%(job_id)s, %(step)s))
ORDER BY job_id, step LIMIT %(limit)s
"""


def list_unknown(connection: Connection, limit: int = 50, *, after: tuple[str, str] | None = None) -> list[Effect]:
    """Return at most `limit` effects that an operator has to resolve, of all accounts, the oldest job's first.

    after  (job id, step) of the last effect of the previous page
    """
    job_id, step = after or (None, None)
    rows = fetch_all(connection, LIST_UNKNOWN, {"job_id": job_id, "step": step, "limit": limit})
    return [Effect(**row) for row in rows]


RESOLVE = f"""
UPDATE effects SET state = %(state)s, result = %(result)s, error = %(error)s, updated_at = now()
WHERE job_id = %(job_id)s AND step = %(step)s AND {UNRESOLVED}
RETURNING {COLUMNS}
"""


def resolve(
    connection: Connection,
    job_id: str,
    step: str,
    state: Literal["done", "failed"],
    result: Mapping[str, Any],
) -> bool:
    """Store an operator's decision on an effect that `list_unknown` lists. Returns False for any other one.

    result  the result if it is done, the error `{"code", "message"}` if it failed
    """
    outcome = _outcome("done", result, None) if state == "done" else _outcome("failed", None, result)
    return fetch_one(connection, RESOLVE, {**outcome, "job_id": job_id, "step": step}) is not None


# While the job can run again, in time or by a replay, the effect prevents a second call. One that failed because of an
# unknown effect can be replayed, and would repeat its other steps.
PRUNE = f"""
DELETE FROM effects WHERE (job_id, step) IN (
    SELECT job_id, step FROM effects
    WHERE (state IN ('done', 'failed') OR starts_with(step, '{TOOL_CALL}'))
      AND updated_at < now() - make_interval(days => %(days)s)
      AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = effects.job_id
                      AND (jobs.state NOT IN ('completed', 'failed', 'cancelled') OR {REPLAYABLE})) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of effects that ended more than KEPT_DAYS ago and whose jobs have ended. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount
