"""The tool `ask`: start a durable turn as `POST /v1/responses` does, report its progress, and return its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

import anyio
import orjson
import redis
from starlette.responses import Response as HttpResponse

from models.access import mcp_requests
from models.journal.events import Event
from pipelines.chat.response_objects import response_object
from pipelines.requests.turn_request import CreateResponse, new_turn
from web.access.rate_limits import body_tokens
from web.access.rights import Rights
from web.api.mcp.arguments import AskArguments
from web.api.mcp.operations import call
from web.api.request import Request
from web.api.routing import Route
from web.api.turns.conversion import convert
from web.api.turns.request_body import read_body
from web.api.turns.started_turn import MAX_WAIT, StartedTurn, read_complete, response_of, start
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Seconds after which the answer to a client that knows tasks becomes a task.
TASK_AFTER = 5.0

#: Seconds between two reports of progress, except for those of calls and agents.
REPORT_INTERVAL = 0.5

#: Reports progress: a number that only grows, and a message.
Report = Callable[[float, str], Awaitable[None]]


class StartedAsk(DeferredResponse):
    """A started turn, as the response of an endpoint."""

    def __init__(self, request: Request, turn: StartedTurn) -> None:
        super().__init__(self._respond, turn.on_disconnect)
        self.request = request
        self.turn = turn

    async def _respond(self) -> HttpResponse:
        return json_response(await self.read())

    async def read(self) -> dict[str, Any]:
        """Read the response as it is now."""
        response = await run_in_thread(read_complete, self.request, self.turn.response.id)
        return dict(response_object(response))


async def _start(request: Request) -> StartedAsk:
    """`POST /v1/responses`, whose answer `ask` waits for."""
    body = await read_body(request, CreateResponse)
    turn = await convert(request, new_turn, body)
    return StartedAsk(request, await start(request, turn, stream=True))


#: The row of the route table, with an endpoint that returns the turn.
CREATE_RESPONSE = Route(
    "POST", "/v1/responses", _start, Rights.INFERENCE, streams=True, creates=True, handles_repeats=True
)


async def start_ask(request: Request, arguments: AskArguments) -> StartedAsk:
    """Start the turn, or find that of an earlier call with the same key. Raises as `POST /v1/responses` does."""
    parameters = arguments.model_dump(exclude_none=True, exclude={"text", "idempotency_key"})
    body = {"input": arguments.text, **parameters}
    CREATE_RESPONSE.rights.check(request.caller)
    admission = await run_in_thread(request.platform.gate.draw_body, request.admission, len(request.body))
    drawn = replace(admission, estimated_tokens=body_tokens(len(request.body)))
    started = await call(replace(request, admission=drawn), CREATE_RESPONSE, body, key=arguments.idempotency_key)
    assert isinstance(started, StartedAsk)
    return started


def sender_of(request: Request) -> str | None:
    """Return the name of the client that sends a request: its caller and session; None without a session."""
    session, caller = request.headers.get("mcp-session-id"), request.caller
    return f"{caller.account_id} {caller.user_id} {caller.key_id} {session}" if session else None


def remember_request(request: Request, request_id: object, job_id: str) -> None:
    """Store the job of a client's request for its cancellation. Without Redis it cannot be cancelled that way."""
    sender = sender_of(request)
    if sender is not None:
        with suppress(redis.RedisError):
            mcp_requests.store(request.platform.redis, sender, request_id, job_id)


async def wait(started: StartedAsk, report: Report, seconds: float = MAX_WAIT) -> dict[str, Any] | None:
    """Wait for the end of the turn and return the response object; None if it takes longer than `seconds`.

    A cancellation is a disconnect of the client: by default the turn goes on.
    """
    try:
        async with asyncio.timeout(seconds):
            last = await _follow(started.turn, report)
    except TimeoutError:
        return None
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await started.abandon()
        raise
    if last is None:  # the process shuts down, or the last event has no response
        return await started.read()
    response: dict[str, Any] = orjson.loads(last)
    return response


async def _follow(turn: StartedTurn, report: Report) -> bytes | None:
    progress = Progress(turn.response.id)
    async with aclosing(turn.event_batches) as batches:  # type: ignore[type-var]
        async for events in batches:
            if (message := progress.add(events)) is not None:
                await report(progress.number, message)
            if events[-1].ends:
                return response_of(events[-1])
    return None


#: Events that are reported at once, and how. The field is of the event.
REPORTED: Mapping[str, tuple[str, str]] = {
    "sangha:tool_call.started": ("Calling the tool {}", "name"),
    "sangha:agent.started": ("Asking the agent {}", "agent"),
    "sangha:approval.requested": ("Waiting for an approval: {}", "item_id"),
}


@dataclass(slots=True)
class Progress:
    """How far a turn is. `number` is that of the last event, so that it only grows; `characters` are of its text."""

    response_id: str
    number: int = 0
    characters: int = 0
    reported_at: float = float("-inf")

    def add(self, events: list[Event]) -> str | None:
        """Count events and return what to report, if anything."""
        self.number = max(self.number, events[-1].sequence + 1)
        notes = [note for event in events if (note := self._note(event.data))]
        now = asyncio.get_running_loop().time()
        if not notes and now - self.reported_at < REPORT_INTERVAL:
            return None
        self.reported_at = now
        return f"{self.response_id}: {notes[-1] if notes else self._state()}"

    def _note(self, data: bytes) -> str | None:
        if data.startswith(b'{"type":"response.output_text.delta"'):
            self.characters += len(orjson.loads(data)["delta"])
        elif data.startswith(b'{"type":"sangha:'):
            event = orjson.loads(data)
            text, name = REPORTED.get(event["type"], ("", ""))
            value = event.get(name)
            return text.format(value["name"] if isinstance(value, dict) else value) if text else None
        return None

    def _state(self) -> str:
        return f"{self.characters} characters of the answer" if self.characters else "the turn has started"
