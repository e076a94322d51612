"""`POST /v1/memories/search`: what a person's memories say to a question.

A job of the recall pool answers, for the door has no embedder. It is gone once it is read: nobody keeps the question.
"""

from functools import partial
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from models.memory import recall_queries
from models.platform.errors import Conflict, JobFailed, RequestError, Unavailable
from pipelines.memory import search_memories
from pipelines.memory.recall import Query
from pipelines.memory.search_memories import HitObject
from web.api.job_results import abandon_job, job_headers, take_result
from web.api.memory.shapes import Hits, SearchMemories
from web.api.request import Request
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response

#: Seconds without a word from a worker: an answer takes a fraction of one.
PATIENCE = 20.0


async def search(request: Request) -> DeferredResponse:
    """`POST /v1/memories/search`: the best hits, the best first."""
    body = bodies.parse(request.body, SearchMemories)
    query = Query(body.query, body.limit, body.filters(), body.include_neighbours)
    job_id = request.new_id("job")
    begun = (request.platform.database, request.caller, query, job_id, request.admission.limits)
    await run_in_threadpool(search_memories.enqueue_search, *begun)
    request.platform.queue.nudge()
    return DeferredResponse(partial(_answer, request, job_id), partial(abandon_job, request, job_id))


async def _answer(request: Request, job_id: str) -> Response:
    hits = await take_result(request, job_id, PATIENCE, recall_queries.take_result, _refusal)
    if hits is None:
        raise Unavailable("This search has been read already.")
    found: Hits = {"object": "list", "data": cast(list[HitObject], hits)}
    return json_response(found, headers=job_headers(job_id))


def _refusal(last: dict[str, Any]) -> RequestError | JobFailed | Unavailable:
    match last.get("type"):
        case None:
            return Unavailable("No worker had time for this search.", retry_after=5)
        case "sangha:job.cancelled":
            return Conflict("The job of this search was cancelled.", code="cancelled")
        case _:
            return JobFailed("The search failed; it has been noted for the operators.")
