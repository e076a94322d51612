"""`POST /v1/memories/search`: search a user's memories.

A job of the recall pool searches, as the web process has no embedder. It is deleted with its query once its result is
read.
"""

from functools import partial
from typing import Any, cast

from starlette.responses import Response

from models.memory import recall_queries
from models.platform.errors import Conflict, JobFailed, RequestError, Unavailable
from pipelines.memory import search_memories
from pipelines.memory.recall import Query
from pipelines.memory.search_memories import HitObject
from web.api.job_results import abandon_job, job_headers, take_result
from web.api.memory.schemas import SearchMemories, SearchResults
from web.api.request import Request
from web.api.requested_space import requested_space
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Seconds to wait for the result, which takes a fraction of a second when a worker is free.
TIMEOUT = 20.0


async def search(request: Request) -> DeferredResponse:
    """`POST /v1/memories/search`: search the user's memories; returns the best hits, best first."""
    body = await bodies.parse_off_loop(request.body, SearchMemories)
    query = Query(body.query, body.limit, body.filters(), body.include_neighbours)
    key, job_id = await run_in_thread(requested_space, request, body.space), request.new_id("job")
    arguments = (request.platform.database, key, query, job_id, request.admission.limits)
    await run_in_thread(search_memories.enqueue_search, *arguments)
    request.platform.queue.nudge(request.caller.account_id)
    return DeferredResponse(partial(_respond, request, job_id), partial(abandon_job, request, job_id))


async def _respond(request: Request, job_id: str) -> Response:
    hits = await take_result(request, job_id, TIMEOUT, recall_queries.take_result, _to_error)
    if hits is None:
        raise Unavailable("The result of this search was already returned to another request. Search again.")
    results: SearchResults = {"object": "list", "data": cast(list[HitObject], hits)}
    return json_response(results, headers=job_headers(job_id))


def _to_error(last: dict[str, Any]) -> RequestError | JobFailed | Unavailable:
    match last.get("type"):
        case None:
            return Unavailable(
                f"No worker was free for this search within {TIMEOUT:g} seconds. Retry later.", retry_after=5
            )
        case "sangha:job.cancelled":
            return Conflict("The search was cancelled.", code="cancelled")
        case _:
            return JobFailed("The search failed because of an internal error, which was recorded for the operators.")
