"""`POST /v1/memories/search`: what a person's memories say to a question.

A job of the recall pool answers, for the door has no embedder. It is gone once it is read: nobody keeps the question.
"""

from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from models.memory import recall_queries
from models.platform.errors import Conflict, Failed, RequestError, Unavailable
from pipelines.memory import searching
from pipelines.memory.recall import Query
from web.http import bodies
from web.http.answers import json_answer
from web.http.awaiting import give_up, read_once
from web.http.departures import job_headers
from web.http.pending import Pending
from web.memory.shapes import SearchMemories
from web.routing import Call

#: Seconds without a word from a worker: an answer takes a fraction of one.
PATIENCE = 20.0


async def search(call: Call) -> Pending:
    """`POST /v1/memories/search`: the best hits, the best first."""
    body = bodies.parse(call.body, SearchMemories)
    query = Query(body.query, body.limit, body.filters(), body.include_neighbours)
    job_id = call.new_id("job")
    begun = (call.platform.database, call.caller, query, job_id, call.admission.limits)
    await run_in_threadpool(searching.ask, *begun)
    call.platform.queue.nudge()
    return Pending(partial(_answer, call, job_id), partial(give_up, call, job_id))


async def _answer(call: Call, job_id: str) -> Response:
    hits = await read_once(call, job_id, PATIENCE, recall_queries.take, _refusal)
    if hits is None:
        raise Unavailable("This search has been read already.")
    return json_answer({"object": "list", "data": hits}, headers=job_headers(job_id))


def _refusal(last: dict[str, Any]) -> RequestError | Failed | Unavailable:
    match last.get("type"):
        case None:
            return Unavailable("No worker had time for this search.", retry_after=5)
        case "sangha.job.cancelled":
            return Conflict("The job of this search was cancelled.", code="cancelled")
        case _:
            return Failed("The search failed; it has been noted for the operators.")
