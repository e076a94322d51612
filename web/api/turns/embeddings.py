"""`POST /v1/embeddings`: embed texts.

A job of the memory pool embeds them, as the web process has no model. Its result is deleted once it is read; the job
of a disconnected client is cancelled.
"""

from functools import partial
from typing import Any

from starlette.responses import Response

from models.platform.errors import Conflict, JobFailed, RequestError, Unavailable
from models.turns import embeddings
from pipelines.embeddings.enqueue_embedding import enqueue_embedding
from pipelines.inference.registry import embedder_name
from pipelines.requests.embeddings import CreateEmbeddings, check_embeddings, embedding_error, embedding_list
from web.api.job_results import abandon_job, job_headers, take_result
from web.api.request import Request
from web.api.turns.request_body import read_body
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Seconds to wait for the job's next event. A running job writes one every few seconds.
TIMEOUT = 60.0


async def create(request: Request) -> DeferredResponse:
    """`POST /v1/embeddings`: embed one or more texts."""
    body = await read_body(request, CreateEmbeddings, requires_model=True)
    check_embeddings(body, request.platform.settings)
    request.allowance.limits.check_model(embedder_name(request.platform.settings))
    job_id = request.new_id("job")
    model = embedder_name(request.platform.settings)
    enqueue = partial(enqueue_embedding, request.platform.database, request.caller, model=model)
    await run_in_thread(enqueue, body.input, body.dimensions, job_id, request.allowance)
    request.platform.queue.nudge(request.caller.account_id)
    return DeferredResponse(
        partial(_respond, request, job_id, body.encoding_format or "float"), partial(abandon_job, request, job_id)
    )


async def _respond(request: Request, job_id: str, encoding: str) -> Response:
    """Wait for the job and respond with its vectors. Raises an error for a job that did not complete."""
    result = await take_result(request, job_id, TIMEOUT, embeddings.take_result, _to_error)
    if result is None:
        raise Unavailable("These embeddings were already returned to another request. Create them again.")
    # In a thread: serializing megabytes of numbers would block the event loop.
    return await run_in_thread(lambda: json_response(embedding_list(result, encoding), headers=job_headers(job_id)))


def _to_error(last: dict[str, Any]) -> RequestError | JobFailed | Unavailable:
    match last.get("type"):
        case None:
            return Unavailable(f"No worker embedded the texts within {TIMEOUT:g} seconds. Retry later.", retry_after=10)
        case "sangha:job.cancelled":
            return Conflict("The creation of these embeddings was cancelled.", code="cancelled")
        case _:
            return embedding_error(last.get("error") or {})
