"""`sangha effects`: list calls to other systems that may have happened, and decide what happened."""

from typing import Any, Literal

import click
import orjson

from models.jobs import effects
from models.jobs.dead_jobs import can_be_replayed, read_any
from models.jobs.effects import Effect
from models.platform.database import Connection
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns

HEADINGS = ("job", "step", "account", "declared", "idempotency key")

#: The error that the job's attempts raise after an operator's decision.
FAILED_CODE = "effect_failed"
FAILED_MESSAGE = "An operator found that the call has had no effect."


def list_unknown(settings: Settings, limit: int) -> None:
    """Print one line per effect that an operator has to resolve, the oldest job's first."""
    with transaction(settings) as connection:
        unknown = effects.list_unknown(connection, limit)
    click.echo("\n".join(align_columns([HEADINGS, *map(effect_row, unknown)])) if unknown else "No unknown effects.")


def effect_row(effect: Effect) -> list[object]:
    """Return the cells of an effect's line."""
    declared = f"{effect.created_at:%Y-%m-%d %H:%M:%S}"
    return [effect.job_id, effect.step, effect.account_id, declared, effect.idempotency_key]


def resolve(
    settings: Settings,
    job_id: str,
    step: str,
    state: Literal["done", "failed"],
    *,
    result: str | None = None,
    reason: str | None = None,
) -> None:
    """Store what happened: a result as JSON, or the reason of a failure. Raises ConfigurationError if it is known."""
    error = {"code": FAILED_CODE, "message": reason or FAILED_MESSAGE}
    outcome = parse_result(result) if state == "done" else error
    with transaction(settings) as connection:
        if not effects.resolve(connection, job_id, step, state, outcome):
            raise ConfigurationError(f"not resolved: {explain_refusal(connection, job_id, step)}")
        job = read_any(connection, job_id)
    click.echo(f"resolved as {state}")
    if job and can_be_replayed(job):
        click.echo(f"The job is {job.state}. It continues with this outcome after `sangha dead replay {job_id}`.")


def explain_refusal(connection: Connection, job_id: str, step: str) -> str:
    """Return why an effect cannot be resolved."""
    effect = effects.read(connection, job_id, step)
    if effect is None:
        return f"there is no step {step} of {job_id}"
    if effect.state == "intent":
        return f"{job_id} is unfinished, and its next attempt looks up what happened"
    return f"step {step} of {job_id} is {effect.state}"


def parse_result(text: str | None) -> dict[str, Any]:
    """Parse a result; without one it is empty. Raises ConfigurationError unless it is a JSON object."""
    try:
        result = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"the result is not valid JSON: {error}") from None
    if not isinstance(result, dict):
        raise ConfigurationError("the result is not a JSON object")
    return result
