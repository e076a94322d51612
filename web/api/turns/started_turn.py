"""Start a turn, wait for its end, and delete it after delivery if it is not stored; common to all APIs for turns."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from models.accounts.ownership import Access
from models.journal.events import Event
from models.journal.shared_fields import SINCE
from models.memory import spaces
from models.platform.errors import LimitExceeded, NotFound, RequestError, Unavailable
from models.platform.texts import truncate
from models.turns import response_deletion, responses
from models.turns.responses import Response
from pipelines.agents.agent_turns import engine_model, is_agent
from pipelines.chat.input_files import has_files
from pipelines.chat.new_turn import AcceptedTurn, NewTurn, TurnIds
from pipelines.chat.recalled_memories import response_with_texts
from pipelines.chat.response_objects import response_object
from pipelines.chat.start_turn import start_turns
from pipelines.chat.turn_space import with_space
from pipelines.requests.input_items import MCP_ITEMS
from pipelines.requests.mcp_tools import check_registered
from web.access import idempotency
from web.access.gate import Admission
from web.access.idempotency import REPLAYED
from web.api.job_events import EventBatches
from web.api.job_results import job_headers
from web.api.request import Request
from web.api.turns.disconnects import cancelled_after_disconnect, disconnect_action
from web.api.turns.retries import add_commands, is_unreadable, join_original, new_ids, store_state
from web.http.disconnects import OnDisconnect, disconnect_policy
from web.http.threads import run_in_thread
from web.streams.follower import Follower

#: Seconds that a request without stream waits for the end of its turn. Then it returns the unfinished response.
#: OpenAI's client times out after 600 seconds and sends the request again, which would start a second turn.
MAX_WAIT = 540.0


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """An accepted turn, its events, the response headers that name it, and what to do when its client disconnects.

    seed  of the ids of all turns of its request; None for a request with an Idempotency-Key
    """

    accepted: AcceptedTurn
    event_batches: EventBatches
    headers: dict[str, str]
    on_disconnect: OnDisconnect | None
    seed: str | None = None

    @property
    def response(self) -> Response:
        """The response as it was accepted."""
        return self.accepted.response


async def start(request: Request, turn: NewTurn, *, stream: bool) -> StartedTurn:
    """Accept a turn, or join that of the original request. Raises as `start_all`."""
    (started,) = await start_all(request, [turn], stream=stream)
    return started


#: Tools and input items of MCP servers.
MCP_PARTS = frozenset({"mcp", *MCP_ITEMS})

#: The first schema version whose workers know tools beside functions, and compactions; agents and MCP servers; files.
TOOLS_SINCE, MCP_SINCE, FILES_SINCE = "0030", "0034", "0053"


def needs_new_workers(turn: NewTurn) -> bool:
    """Return whether a worker of an earlier version cannot run a turn."""
    tools = turn.request.get("tools") or []
    return (
        any(tool["type"] != "function" for tool in tools)
        or turn.request.get("context_management") is not None
        or any(item["type"] == "compaction" for item in turn.input)
    )


def _uses_mcp(turn: NewTurn) -> bool:
    parts = [*(turn.request.get("tools") or ()), *turn.input]
    return is_agent(turn.request["model"]) or any(part["type"] in MCP_PARTS for part in parts)


def _check_versions(request: Request, turns: Sequence[NewTurn]) -> None:
    if any(has_files(turn.input) for turn in turns):
        require_file_readers(request)
    if any(map(needs_new_workers, turns)):
        require_new_workers(request)
    if any(map(_uses_mcp, turns)) and not request.platform.compatibility.at_least(MCP_SINCE):
        raise Unavailable("Agents and tools of MCP servers are available once the upgrade of this server is finalized.")


def require_new_workers(request: Request) -> None:
    """Raise Unavailable while workers of an earlier version may run."""
    if not request.platform.compatibility.at_least(TOOLS_SINCE):
        raise Unavailable(
            "Tools other than functions, and compactions, are available once the upgrade of this server is finalized."
        )


def require_file_readers(request: Request) -> None:
    """Raise Unavailable while workers may run that would leave files out of a prompt."""
    if not request.platform.compatibility.at_least(FILES_SINCE):
        raise Unavailable("Files in messages are available once the upgrade of this server is finalized.")


async def start_all(request: Request, turns: Sequence[NewTurn], *, stream: bool) -> list[StartedTurn]:
    """Accept the turns of a request, all or none, or join those of the original request.

    Raises the errors of `start_turns`, and LimitExceeded if the limit of open streams is reached.
    """
    _check_versions(request, turns)
    policy = disconnect_policy(request.headers)
    if stream:
        request.stream_permit.acquire()
    ids = new_ids(request.ids, len(turns))
    followers = [_subscribe(request, job_id) for _, job_id in ids]  # before the first event: no history has to be read
    ends_with_client = cancelled_after_disconnect(request, policy, turns[0])
    web_process = request.platform.lease.name if ends_with_client else None
    accepted = await run_in_thread(_accept, request, turns, ids, web_process)
    job_ids = [turn.response.job_id for turn in accepted.turns]
    on_disconnect = disconnect_action(request, policy, job_ids, accepted.seed, unreadable=is_unreadable(turns[0]))
    return [
        _started(request, turn, follower, accepted, on_disconnect)
        for turn, follower in zip(accepted.turns, followers, strict=True)
    ]


def _subscribe(request: Request, job_id: str) -> Follower:
    tail = request.platform.tail
    follower = tail.subscribe(job_id)
    request.cleanup.callback(tail.unsubscribe, job_id, follower)
    return follower


def _started(
    request: Request,
    turn: AcceptedTurn,
    follower: Follower,
    accepted: "AcceptedTurns",
    on_disconnect: OnDisconnect | None,
) -> StartedTurn:
    response, joined = turn.response, accepted.joined
    follower.push_opening(turn.opening_events)
    events = request.platform.tail.follow(
        response.job_id, follower=None if joined else follower, owner=request.caller.account_id
    )
    headers = {**job_headers(response.job_id, response.id), **accepted.headers, **(REPLAYED if joined else {})}
    return StartedTurn(turn, events, headers, on_disconnect, accepted.seed)


@dataclass(frozen=True, slots=True)
class AcceptedTurns:
    """The turns of a request.

    seed     of their ids; None for a request with an Idempotency-Key
    joined   the original request has created them; this one is a retry
    headers  rate limit headers for the response
    """

    turns: Sequence[AcceptedTurn]
    seed: str | None
    joined: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def _accept(
    request: Request, turns: Sequence[NewTurn], ids: Sequence[TurnIds], web_process: str | None
) -> AcceptedTurns:
    named_spaces = request.platform.compatibility.at_least(spaces.SINCE)
    turns = [with_space(turn, request.caller, named_spaces=named_spaces) for turn in turns]
    return _join(request, turns) or _start(request, turns, ids, web_process)


def _join(request: Request, turns: Sequence[NewTurn]) -> AcceptedTurns | None:
    """Join the turns of the original request, if this is a retry of it."""
    if (original := join_original(request, turns)) is None:
        return None
    request.platform.gate.give_back(request.admission)  # the original request has drawn the tokens
    return AcceptedTurns(original.turns, original.seed, joined=True)


def _start(
    request: Request, turns: Sequence[NewTurn], ids: Sequence[TurnIds], web_process: str | None
) -> AcceptedTurns:
    """Insert the turns, all or none, and announce them."""
    platform, seed = request.platform, request.retriable.seed if request.retriable else None
    if request.repeat == "first":
        tools = turns[0].request.get("tools") or []
        check_registered(platform.settings, platform.database, request.caller.account_id, tools)
    with _rejection_stored(request, seed), _tokens_drawn(request, turns) as admission:
        accepted = start_turns(
            platform.database,
            request.caller,
            turns,
            ids,
            replace(request.allowance, estimated_tokens=admission.estimated_tokens // len(turns)),
            repeat=request.repeat,
            shares_fields=platform.compatibility.at_least(SINCE),
            web_process=web_process,
            routing=platform.routing,
            models=platform.serving.state().models,
        )
    _announce(request, accepted)
    return AcceptedTurns(accepted, seed, headers=admission.headers)


@contextmanager
def _rejection_stored(request: Request, seed: str | None) -> Iterator[None]:
    """Store that a request was rejected which its client sends again, so that its retry joins no other request."""
    try:
        yield
    except (LimitExceeded, Unavailable):
        store_state(request, seed, "failed")
        raise


def _announce(request: Request, accepted: Sequence[AcceptedTurn]) -> None:
    """Announce the turns to the queue, the first one with the record of the request for its retries."""
    queue, account_id = request.platform.queue, request.caller.account_id
    commands = add_commands(request)
    for turn in accepted:
        queue.announce_job(turn.response.job_id, turn.opening_events, account_id, extra_commands=commands)
        if turn.interrupted is not None:
            queue.announce_cancellation(turn.interrupted, account_id)
        commands = []


@dataclass(frozen=True, slots=True)
class ResponseJson:
    """A response object as JSON, and whether its turn has ended."""

    json: bytes
    ended: bool


async def wait_for_end(request: Request, turn: StartedTurn) -> ResponseJson:
    """Return the response from the last event of its journal; holds no database connection while waiting.

    After `MAX_WAIT`, or when the process shuts down, returns the unfinished response.
    """
    try:
        async with asyncio.timeout(MAX_WAIT):
            json = await _final_response(turn.event_batches)
    except TimeoutError:
        json = None
    if json is not None:
        return ResponseJson(await _with_recalled_texts(request, turn.response, json), ended=True)
    response = await run_in_thread(read_complete, request, turn.response.id)
    return ResponseJson(orjson.dumps(response_object(response)), response.ended)


async def _with_recalled_texts(request: Request, response: Response, json: bytes) -> bytes:
    """Add the texts of recalled memories, which events do not have, to a response object."""
    if b'"recalled":[{' not in json:  # or a schema has such a text
        return json
    parsed = orjson.loads(json)
    complete = await run_in_thread(_complete, request, replace(response, recalled=parsed["recalled"]))
    return orjson.dumps({**parsed, "recalled": complete.recalled})


def _complete(request: Request, response: Response) -> Response:
    with request.platform.database.connection() as connection:
        return response_with_texts(connection, response)


async def _final_response(event_batches: EventBatches) -> bytes | None:
    async for events in event_batches:
        if events[-1].ends:
            return response_of(events[-1])
    return None


#: The last key of an event with a response object. Before it, an event has ids and its type, and no other text.
_RESPONSE = b'"response":'


def response_of(event: Event) -> bytes | None:
    """Return the response object of an event as JSON, without parsing it; None if the event has none."""
    start = event.data.find(_RESPONSE)
    return event.data[start + len(_RESPONSE) : -1] if start >= 0 else None


def read_complete(request: Request, response_id: str) -> Response:
    """Read a response of the caller, with the texts of recalled memories. Raises NotFound."""
    response = read_response(request, response_id)
    return _complete(request, response) if response.recalled else response


def read_response(request: Request, response_id: str) -> Response:
    """Read a response of the caller. Raises NotFound."""
    with request.platform.database.connection() as connection:
        response = responses.read(connection, response_id, Access.own(request.caller))
    if response is None:
        raise NotFound(f"Response with id '{truncate(response_id)}' not found.", param="response_id")
    return response


def on_delivered(request: Request, response: Response) -> Callable[[], None] | None:
    """Return a callback for the delivery of a response's end, which deletes an unstored response.

    None for a stored response, and for a request with an Idempotency-Key, which may be repeated.
    """
    repeatable = idempotency.HEADER in request.headers
    return None if response.expires_at is None or repeatable else partial(_delete, request, response)


def _delete(request: Request, response: Response) -> None:
    """Delete an ended response. If the process stops before, the sweeper deletes it."""
    with request.platform.database.connection() as connection:
        deleted = response_deletion.delete(connection, response.id, response.account_id)
    if deleted:
        request.platform.queue.forget_journal(response.job_id)


def _context(request: Request, turn: NewTurn) -> int:
    """Return the context of the model that a turn names; of the default one for an agent."""
    models = request.platform.serving.state().models
    return (models.find(engine_model(turn.request)) or models.default).description.context


@contextmanager
def _tokens_drawn(request: Request, turns: Sequence[NewTurn]) -> Iterator[Admission]:
    """Draw the most tokens of the answers from the limit per minute, and return them to it if a turn is rejected."""
    gate, context = request.platform.gate, _context(request, turns[0])
    max_tokens = sum(min(turn.request["max_output_tokens"] or 0, context) for turn in turns)
    if request.repeat != "first":
        max_tokens = 0  # an earlier request has drawn it
    admission = gate.draw_answer(request.admission, max_tokens)
    try:
        yield admission
    except RequestError:  # after other errors the turn may exist: its end returns what it does not use
        gate.give_back(admission)
        raise
