"""Run a short job about a prompt in the inference pool, return its result, and delete it."""

from typing import Any

from models.platform.errors import InvalidRequest, Unavailable
from pipelines.chat.prompt_jobs import PromptRequest, enqueue_prompt_job
from web.api.job_results import cancel_job, delete_ended_job, last_event
from web.api.request import Request
from web.api.turns.serving import serving_for
from web.http.threads import run_in_thread

#: Seconds to wait for the result.
TIMEOUT = 30.0


async def run_prompt_job(
    request: Request, kind: str, prompt: PromptRequest, *, timeout: float | None = None
) -> dict[str, Any]:
    """Return the result of a job of this kind, within `timeout` seconds or TIMEOUT.

    Raises InvalidRequest for a prompt that the engine rejects, and Unavailable.
    """
    job_id = request.new_id("job")
    limits = request.admission.limits
    models = (await serving_for(request)).models
    await run_in_thread(
        enqueue_prompt_job, request.platform.database, request.caller, kind, prompt, job_id, limits, models
    )
    request.platform.queue.nudge(request.caller.account_id)
    try:
        last = await last_event(request, job_id, TIMEOUT if timeout is None else timeout)
        if not last:
            await run_in_thread(cancel_job, request, job_id)
    finally:
        await run_in_thread(delete_ended_job, request, job_id)
    return _result(last)


def _result(last: dict[str, Any]) -> dict[str, Any]:
    if result := last.get("result"):
        fields: dict[str, Any] = result
        return fields
    if last.get("type") == "sangha:job.failed":
        raise InvalidRequest(last["error"]["message"], param="input", code=last["error"]["code"])
    raise Unavailable(f"No inference worker was free within {TIMEOUT:g} seconds. Retry later.", retry_after=5)
