"""The model that a job in a queue of models asks for, and the move of a job that another worker's model has claimed."""

from collections.abc import Mapping
from typing import Any

from models.jobs.attempt_context import Attempt
from models.jobs.catalogue import batch_queue, is_batch
from models.platform.database import fetch_one
from models.platform.errors import Moved
from models.serving.queues import DEFAULT_QUEUE, model_queue
from models.serving.served_models import ServedModel, local_queue
from pipelines.agents.agent_turns import engine_model, is_agent

#: The job argument with the model's name. None: the default model, whichever it is when the job runs. Jobs of earlier
#: versions lack it.
ARGUMENT = "model"

OF_RESPONSE = "SELECT request FROM responses WHERE job_id = %(job_id)s"


def argument(target: ServedModel | None, request: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Return the argument of a turn's job with the model that it is enqueued for, if that is known."""
    if target is None:
        return {}
    is_any = request.get("any_model") and target.queue == DEFAULT_QUEUE
    return {ARGUMENT: None if is_any else target.description.name}


def check_served(attempt: Attempt, served: str) -> None:
    """Raise Moved for a job of another model: the default model has changed since it was enqueued."""
    requested = requested_model(attempt)
    if requested in (None, served):
        return
    with attempt.database.connection() as connection:
        queues = [local_queue(connection, requested), model_queue(requested, "")]
    if is_batch(attempt.job.queue):
        queues = [batch_queue(queue) for queue in queues]
    queue = next((queue for queue in queues if queue != attempt.job.queue), queues[0])
    raise Moved(f"this worker serves '{served}', not '{requested}'", queue=queue)


def requested_model(attempt: Attempt) -> str | None:
    """Return the name of the model that the job's request names; None if any model will do."""
    arguments = attempt.job.arguments
    if ARGUMENT in arguments:
        model: str | None = arguments[ARGUMENT]
        return model
    request = arguments.get("request") or {}
    if attempt.job.kind == "turn.run":
        with attempt.database.connection() as connection:
            row = fetch_one(connection, OF_RESPONSE, {"job_id": attempt.job.id})
        request = row["request"] if row else {}
    named = engine_model(request) if request.get("model") and not request.get("any_model") else None
    return None if is_agent(named) else named
