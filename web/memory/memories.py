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
from models.memory.memories import Change, Memory
from models.platform.errors import Conflict, Failed, InvalidRequest, NotFound, RequestError
from pipelines.memory import forgetting, starting
from web.http import bodies
from web.http.answers import json_answer, page
from web.http.awaiting import forget_ended, last_event
from web.http.departures import job_headers
from web.http.paging import paged
from web.http.validation import cut, parse_query
from web.jobs import job_object
from web.memory.shapes import ChangeMemory, CreateMemories, ForgetMemories, ListMemories, memory_object
from web.routing import Call

#: Seconds without a word from a worker, after which the job is the answer.
PATIENCE = 30.0


async def create(call: Call) -> Response:
    """`POST /v1/memories`: write one, or up to 1,000. They are answered once a search finds them.

    With `Prefer: respond-async`, or where no worker has time, the answer is the job.
    """
    given = bodies.parse(call.body, CreateMemories).given()
    job_id, ids = call.new_id("job"), [call.new_id("mem") for _ in given]
    begun = (call.platform.database, call.caller, given, ids, datetime.now(UTC), job_id, call.admission.limits)
    await run_in_threadpool(starting.create, *begun)
    if not await _done(call, job_id):
        return await run_in_threadpool(_job, call, job_id)
    return await run_in_threadpool(_written, call, job_id, ids)


def list_memories(call: Call) -> Response:
    """`GET /v1/memories`: the latest written first."""
    query = parse_query(call.query, ListMemories)
    who = call.caller
    with call.platform.database.connection() as connection:
        found = memories.page(
            connection,
            who.account_id,
            who.user_id,
            query.filters(),
            cursor=query.after,
            closed=query.include_closed,
            limit=query.wanted,
        )
    return paged(found, query.limit, memory_object)


def read(call: Call) -> Response:
    """`GET /v1/memories/{id}`: with the ids of what it follows from."""
    memory = _read(call)
    with call.platform.database.connection() as connection:
        sources = memory_sources.sources(connection, memory.id, memory.account_id)
    return json_answer({**memory_object(memory), "sources": sources})


async def change(call: Call) -> Response:
    """`PATCH /v1/memories/{id}`: new words are found, and the old ones not, once this is answered. What was derived
    from the old ones alone is closed.

    Where no worker has time, the answer is the job.
    """
    body = bodies.parse(call.body, ChangeMemory)
    memory = await run_in_threadpool(_read, call)
    if body.text is None:
        return await run_in_threadpool(_change_now, call, memory, Change(**dict(body)))
    job_id, told = call.new_id("job"), body.model_dump(mode="json", exclude_none=True)
    who, limits = call.caller, call.admission.limits
    await run_in_threadpool(starting.change, call.platform.database, who, memory.id, told, job_id, limits)
    if not await _done(call, job_id):
        return await run_in_threadpool(_job, call, job_id)
    await run_in_threadpool(forget_ended, call, job_id)
    return json_answer(memory_object(await run_in_threadpool(_read, call)))


def delete(call: Call) -> Response:
    """`DELETE /v1/memories/{id}`: forget it. What was derived from it alone is closed and loses its words."""
    memory = _read(call)
    forgetting.forget_one(call.platform.database, memory)
    call.platform.queue.nudge()
    return json_answer({"id": memory.id, "object": "memory", "deleted": True})


async def delete_many(call: Call) -> Response:
    """`DELETE /v1/memories`: forget those of a conversation, or all. Where it takes long, the answer is the job."""
    query = parse_query(call.query, ForgetMemories)
    if query.all == (query.conversation_id is not None):
        raise InvalidRequest("Say which: 'conversation_id', or 'all=true'.", param="conversation_id")
    job_id, who = call.new_id("job"), call.caller
    begun = (call.platform.database, who, query.conversation_id, job_id, call.admission.limits)
    await run_in_threadpool(starting.forget, *begun)
    if not (last := await _done(call, job_id)):
        return await run_in_threadpool(_job, call, job_id)
    await run_in_threadpool(forget_ended, call, job_id)
    return json_answer({"object": "memory.deletion", "deleted": last["result"]["deleted"]})


async def _done(call: Call, job_id: str) -> dict[str, Any]:
    """The last event of a job that has done its work; nothing where the caller or the worker would not wait.

    Raises what became of one that has not.
    """
    call.platform.queue.nudge()
    if "respond-async" in call.headers.get("prefer", ""):
        return {}
    last = await last_event(call, job_id, PATIENCE)
    if last and last["type"] != "sangha.job.completed":
        raise _refusal(last)
    return last


def _refusal(last: dict[str, Any]) -> RequestError | Failed:
    match last["type"], (last.get("error") or {}).get("code"):
        case "sangha.job.cancelled", _:
            return Conflict("The job of this request was cancelled.", code="cancelled")
        case _, "deleted":
            return NotFound(last["error"]["message"])
        case _:
            return Failed("The memories could not be written; it has been noted for the operators.")


def _written(call: Call, job_id: str, ids: list[str]) -> Response:
    """The memories; of a job whose end has been heard nothing need stay."""
    with call.platform.database.connection() as connection:
        found = memories.read_many(connection, ids, call.caller.account_id, call.caller.user_id)
    forget_ended(call, job_id)
    return json_answer(page([memory_object(memory) for memory in found]), 201, job_headers(job_id))


def _job(call: Call, job_id: str) -> Response:
    """The job, to be followed."""
    with call.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, call.caller.account_id)
    if job is None:
        raise NotFound("The job of this request is gone.")
    return json_answer(job_object(job), 202, job_headers(job_id))


def _change_now(call: Call, memory: Memory, change: Change) -> Response:
    """What changes no words needs no worker."""
    with call.platform.database.transaction() as connection:
        space = spaces.lock(connection, memory.space_id)
        changed = space and forgetting.rewrite(connection, space, memory, change)
    if not changed:
        raise _not_found(call)
    return json_answer(memory_object(changed))


def _read(call: Call) -> Memory:
    with call.platform.database.connection() as connection:
        found = memories.read(connection, call.path["memory_id"], call.caller.account_id, call.caller.user_id)
    if found is None:
        raise _not_found(call)
    return found


def _not_found(call: Call) -> NotFound:
    return NotFound(f"Memory with id '{cut(call.path['memory_id'])}' not found.", param="memory_id")
