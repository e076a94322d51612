"""`/v1/memories`: what is remembered of a person, and for nobody else of the account.

The door has no embedder: what changes words is a job, and the request waits for its end.
"""

from datetime import UTC, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from models.jobs import jobs
from models.memory import memories, spaces
from models.memory import sources as memory_sources
from models.memory.memories import Memory, MemoryUpdate
from models.platform.errors import Conflict, InvalidRequest, JobFailed, NotFound, RequestError
from pipelines.memory import change_memory, forget_memories, memory_jobs
from web.api.job_object import job_object
from web.api.job_results import delete_ended_job, job_headers, last_event
from web.api.memory.shapes import (
    ChangeMemory,
    CitingMemory,
    CreateMemories,
    ForgetMemories,
    ListMemories,
    MemoriesDeleted,
    MemoryDeleted,
    memory_object,
)
from web.api.request import Request
from web.http import bodies
from web.http.paging import page_response
from web.http.responses import json_response, page_object
from web.http.validation import parse_query, truncate

#: Seconds without a word from a worker, after which the job is the answer.
PATIENCE = 30.0


async def create(request: Request) -> Response:
    """`POST /v1/memories`: write one, or up to 1,000. They are answered once a search finds them.

    With `Prefer: respond-async`, or where no worker has time, the answer is the job.
    """
    given = bodies.parse(request.body, CreateMemories).given()
    job_id, ids = request.new_id("job"), [request.new_id("mem") for _ in given]
    begun = (request.platform.database, request.caller, given, ids, datetime.now(UTC), job_id, request.admission.limits)
    await run_in_threadpool(memory_jobs.enqueue_create, *begun)
    if not await _done(request, job_id):
        return await run_in_threadpool(_job, request, job_id)
    return await run_in_threadpool(_written, request, job_id, ids)


def list_memories(request: Request) -> Response:
    """`GET /v1/memories`: the latest written first."""
    query = parse_query(request.query, ListMemories)
    who = request.caller
    with request.platform.database.connection() as connection:
        found = memories.page(
            connection,
            who.account_id,
            who.user_id,
            query.filters(),
            cursor=query.after,
            closed=query.include_closed,
            limit=query.fetch_limit,
        )
    return page_response(found, query.limit, memory_object)


def read(request: Request) -> Response:
    """`GET /v1/memories/{id}`: with the ids of what it follows from."""
    memory = _read(request)
    with request.platform.database.connection() as connection:
        sources = memory_sources.list_sources(connection, memory.id, memory.account_id)
    citing: CitingMemory = {**memory_object(memory), "sources": sources}
    return json_response(citing)


async def change(request: Request) -> Response:
    """`PATCH /v1/memories/{id}`: new words are found, and the old ones not, once this is answered. What was derived
    from the old ones alone is closed.

    Where no worker has time, the answer is the job.
    """
    body = bodies.parse(request.body, ChangeMemory)
    memory = await run_in_threadpool(_read, request)
    if body.text is None:
        return await run_in_threadpool(_change_now, request, memory, MemoryUpdate(**dict(body)))
    job_id, told = request.new_id("job"), body.model_dump(mode="json", exclude_none=True)
    who, limits = request.caller, request.admission.limits
    await run_in_threadpool(memory_jobs.enqueue_change, request.platform.database, who, memory.id, told, job_id, limits)
    if not await _done(request, job_id):
        return await run_in_threadpool(_job, request, job_id)
    await run_in_threadpool(delete_ended_job, request, job_id)
    return json_response(memory_object(await run_in_threadpool(_read, request)))


def delete(request: Request) -> Response:
    """`DELETE /v1/memories/{id}`: forget it. What was derived from it alone is closed and loses its words."""
    memory = _read(request)
    forget_memories.delete_memory(request.platform.database, memory)
    request.platform.queue.nudge()
    deleted: MemoryDeleted = {"id": memory.id, "object": "memory", "deleted": True}
    return json_response(deleted)


async def delete_many(request: Request) -> Response:
    """`DELETE /v1/memories`: forget those of a conversation, or all. Where it takes long, the answer is the job."""
    query = parse_query(request.query, ForgetMemories)
    if query.all == (query.conversation_id is not None):
        raise InvalidRequest("Say which: 'conversation_id', or 'all=true'.", param="conversation_id")
    job_id, who = request.new_id("job"), request.caller
    begun = (request.platform.database, who, query.conversation_id, job_id, request.admission.limits)
    await run_in_threadpool(memory_jobs.enqueue_forget, *begun)
    if not (last := await _done(request, job_id)):
        return await run_in_threadpool(_job, request, job_id)
    await run_in_threadpool(delete_ended_job, request, job_id)
    deleted: MemoriesDeleted = {"object": "memory.deletion", "deleted": last["result"]["deleted"]}
    return json_response(deleted)


async def _done(request: Request, job_id: str) -> dict[str, Any]:
    """The last event of a job that has done its work; nothing where the caller or the worker would not wait.

    Raises what became of one that has not.
    """
    request.platform.queue.nudge()
    if "respond-async" in request.headers.get("prefer", ""):
        return {}
    last = await last_event(request, job_id, PATIENCE)
    if last and last["type"] != "sangha:job.completed":
        raise _refusal(last)
    return last


def _refusal(last: dict[str, Any]) -> RequestError | JobFailed:
    match last["type"], (last.get("error") or {}).get("code"):
        case "sangha:job.cancelled", _:
            return Conflict("The job of this request was cancelled.", code="cancelled")
        case _, "deleted":
            return NotFound(last["error"]["message"])
        case _:
            return JobFailed("The memories could not be written; it has been noted for the operators.")


def _written(request: Request, job_id: str, ids: list[str]) -> Response:
    """The memories; of a job whose end has been heard nothing need stay."""
    with request.platform.database.connection() as connection:
        found = memories.read_many(connection, ids, request.caller.account_id, request.caller.user_id)
    delete_ended_job(request, job_id)
    return json_response(page_object([memory_object(memory) for memory in found]), 201, job_headers(job_id))


def _job(request: Request, job_id: str) -> Response:
    """The job, to be followed."""
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, request.caller.account_id)
    if job is None:
        raise NotFound("The job of this request is gone.")
    return json_response(job_object(job), 202, job_headers(job_id))


def _change_now(request: Request, memory: Memory, change: MemoryUpdate) -> Response:
    """What changes no words needs no worker."""
    with request.platform.database.transaction() as connection:
        space = spaces.lock(connection, memory.space_id)
        changed = space and change_memory.update_memory(connection, space, memory, change)
    if not changed:
        raise _not_found(request)
    return json_response(memory_object(changed))


def _read(request: Request) -> Memory:
    with request.platform.database.connection() as connection:
        found = memories.read(
            connection, request.path_params["memory_id"], request.caller.account_id, request.caller.user_id
        )
    if found is None:
        raise _not_found(request)
    return found


def _not_found(request: Request) -> NotFound:
    return NotFound(f"Memory with id '{truncate(request.path_params['memory_id'])}' not found.", param="memory_id")
