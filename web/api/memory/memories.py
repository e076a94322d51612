"""`/v1/memories`: create, list, read, update and delete the memories of a user or of one of the user's end users.

Memories are private to their user, and a request has access to those of one space. The web process has no embedder: a
change of texts is a job, whose end the request waits for.
"""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from models.accounts.ownership import Access
from models.jobs import jobs
from models.memory import memories, spaces
from models.memory import sources as memory_sources
from models.memory.memories import Memory, MemoryUpdate
from models.memory.spaces import SpaceKey
from models.platform.errors import Conflict, InvalidRequest, JobFailed, LimitExceeded, NotFound, RequestError
from models.platform.texts import truncate
from pipelines.memory import change_memory, forget_memories, memory_jobs
from web.api.job_object import job_object
from web.api.job_results import delete_ended_job, job_headers, last_event
from web.api.memory.schemas import (
    CreateMemories,
    DeleteMemories,
    ListMemories,
    MemoriesDeleted,
    MemoryDeleted,
    MemoryWithSources,
    UpdateMemory,
    memory_object,
)
from web.api.request import Request
from web.api.requested_space import queried_space, requested_space
from web.http import bodies
from web.http.paging import page_response
from web.http.queries import parse_query
from web.http.responses import json_response, page_object
from web.http.threads import run_in_thread

#: Seconds without an event of the job after which the response is the job.
TIMEOUT = 30.0


async def create(request: Request) -> Response:
    """`POST /v1/memories`: create one memory, or up to 1,000.

    The response is sent once searches find them. With `Prefer: respond-async`, or when no worker is free within 30
    seconds, the response is the job.
    """
    body = await bodies.parse_off_loop(request.body, CreateMemories)
    key, inputs = await run_in_thread(requested_space, request, body.space), body.to_inputs()
    job_id, ids = request.new_id("job"), [request.new_id("mem") for _ in inputs]
    arguments = (
        request.platform.database,
        key,
        inputs,
        ids,
        datetime.now(UTC),
        job_id,
        request.admission.limits,
    )
    if request.repeat == "answered":
        return await run_in_thread(_restored_response, request, key, job_id, ids)
    await run_in_thread(memory_jobs.enqueue_create, *arguments)
    if not await _wait_unless_async(request, job_id):
        return await run_in_thread(_job_response, request, job_id)
    return await run_in_thread(_created_response, request, key, job_id, ids)


def list_memories(request: Request) -> Response:
    """`GET /v1/memories`: list the memories of a space, last created first."""
    query = parse_query(request.query, ListMemories)
    key = requested_space(request, query.space)
    with request.platform.database.connection() as connection:
        records = memories.page(
            connection,
            key,
            query.filters(),
            cursor=query.after,
            closed=query.include_closed,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, memory_object)


def read(request: Request) -> Response:
    """`GET /v1/memories/{id}`: read a memory and the ids of its sources."""
    memory = _read(request, queried_space(request))
    with request.platform.database.connection() as connection:
        sources = memory_sources.list_sources(connection, memory.id, memory.account_id)
    with_sources: MemoryWithSources = {**memory_object(memory), "sources": sources}
    return json_response(with_sources)


async def update(request: Request) -> Response:
    """`PATCH /v1/memories/{id}`: update a memory.

    A change of the text closes memories derived only from it. The response is sent once searches find the new text;
    when no worker is free within 30 seconds, the response is the job.
    """
    key = await run_in_thread(queried_space, request)
    body = await bodies.parse_off_loop(request.body, UpdateMemory)
    memory = await run_in_thread(_read, request, key)
    if body.text is None:
        async with _change_of_memories(request, key):
            return await run_in_thread(_update_without_job, request, memory, MemoryUpdate(**dict(body)))
    job_id, changes = request.new_id("job"), body.model_dump(mode="json", exclude_none=True)
    arguments = (request.platform.database, key, memory.id, changes, job_id, request.admission.limits)
    await run_in_thread(memory_jobs.enqueue_change, *arguments)
    if not await _wait_unless_async(request, job_id):
        return await run_in_thread(_job_response, request, job_id)
    await run_in_thread(delete_ended_job, request, job_id)
    return json_response(memory_object(await run_in_thread(_read, request, key)))


async def delete(request: Request) -> Response:
    """`DELETE /v1/memories/{id}`: delete a memory. Memories derived only from it are closed and lose their text."""
    key = await run_in_thread(queried_space, request)
    memory = await run_in_thread(_read, request, key)
    # One with thousands of different words takes half a second: other changes of the space do not wait in threads.
    async with _change_of_memories(request, key):
        await run_in_thread(forget_memories.delete_memory, request.platform.database, memory)
    deleted: MemoryDeleted = {"id": memory.id, "object": "memory", "deleted": True}
    return json_response(deleted)


async def delete_many(request: Request) -> Response:
    """`DELETE /v1/memories`: delete the memories of a conversation or a space; an end user's space, too.

    The response is the job if it takes longer than 30 seconds.
    """
    query = parse_query(request.query, DeleteMemories)
    if query.all == (query.conversation_id is not None):
        raise InvalidRequest("Exactly one of 'conversation_id' and 'all=true' is required.", param="conversation_id")
    key, job_id = await run_in_thread(requested_space, request, query.space), request.new_id("job")
    arguments = (request.platform.database, key, query.conversation_id, job_id, request.admission.limits)
    await run_in_thread(memory_jobs.enqueue_forget, *arguments)
    if not (last := await _wait_unless_async(request, job_id)):
        return await run_in_thread(_job_response, request, job_id)
    await run_in_thread(delete_ended_job, request, job_id)
    deleted: MemoriesDeleted = {"object": "memory.deletion", "deleted": last["result"]["deleted"]}
    return json_response(deleted)


async def _wait_unless_async(request: Request, job_id: str) -> dict[str, Any]:
    """Wait for the job and return its last event; empty with `Prefer: respond-async` or when no worker is free.

    Raises an error for a job that did not complete.
    """
    request.platform.queue.nudge(request.caller.account_id)
    if "respond-async" in request.headers.get("prefer", ""):
        return {}
    last = await last_event(request, job_id, TIMEOUT)
    if last and last["type"] != "sangha:job.completed":
        raise _to_error(last)
    return last


def _to_error(last: dict[str, Any]) -> RequestError | JobFailed:
    match last["type"], (last.get("error") or {}).get("code"):
        case "sangha:job.cancelled", _:
            return Conflict("The job of this request was cancelled before it completed.", code="cancelled")
        case _, "deleted":
            return NotFound(last["error"]["message"])
        case _, "memory_spaces_exceeded":
            return LimitExceeded(last["error"]["message"], code="memory_spaces_exceeded")
        case _:
            return JobFailed(
                "The memories were not written because of an internal error, which was recorded for the operators."
            )


def _created_response(request: Request, key: SpaceKey, job_id: str, ids: list[str]) -> Response:
    """Respond with the created memories, and delete the job, which is no longer needed."""
    with request.platform.database.connection() as connection:
        created = memories.read_many(connection, ids, key)
    delete_ended_job(request, job_id)
    return json_response(page_object([memory_object(memory) for memory in created]), 201, job_headers(job_id))


def _restored_response(request: Request, key: SpaceKey, job_id: str, ids: list[str]) -> Response:
    """Respond to a repeated request: with its job if that exists, or with those memories that were not deleted."""
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
    return _created_response(request, key, job_id, ids) if job is None else _job_response(request, job_id)


def _job_response(request: Request, job_id: str) -> Response:
    """Respond with the job, whose events the caller can follow."""
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
    if job is None:
        raise NotFound("The job of this request was deleted.")
    return json_response(job_object(job), 202, job_headers(job_id))


def _change_of_memories(request: Request, key: SpaceKey) -> AbstractAsyncContextManager[None]:
    """Wait on the event loop until no other request changes memories of the space in this process."""
    return request.platform.memory_changes.take(key.lane)


def _update_without_job(request: Request, memory: Memory, change: MemoryUpdate) -> Response:
    """Update fields other than the text, which needs no embedder and so no job."""
    with request.platform.database.transaction() as connection:
        space = spaces.lock(connection, memory.space_id)
        changed = space and change_memory.update_memory(connection, space, memory, change)
    if not changed:
        raise _not_found(request)
    return json_response(memory_object(changed))


def _read(request: Request, key: SpaceKey) -> Memory:
    with request.platform.database.connection() as connection:
        memory = memories.read(connection, request.path_params["memory_id"], key)
    if memory is None:
        raise _not_found(request)
    return memory


def _not_found(request: Request) -> NotFound:
    return NotFound(f"Memory with id '{truncate(request.path_params['memory_id'])}' not found.", param="memory_id")
