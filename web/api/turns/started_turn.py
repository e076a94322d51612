"""Start a turn, wait for its end, and delete it after delivery if it is not stored; common to all APIs for turns."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import orjson

from models.accounts.ownership import Access
from models.journal.events import Event
from models.journal.shared_fields import SINCE
from models.platform.errors import NotFound, RequestError
from models.turns import responses
from models.turns.responses import Response
from pipelines.chat.recalled_memories import response_with_texts
from pipelines.chat.response_objects import response_object
from pipelines.chat.start_turn import AcceptedTurn, NewTurn, start_turn
from web.access import idempotency
from web.access.gate import Admission
from web.api.job_events import EventBatches
from web.api.job_results import cancel_job, job_headers
from web.api.request import Request
from web.http.disconnects import OnDisconnect, on_disconnect
from web.http.threads import run_in_thread
from web.http.validation import truncate

#: Seconds that a request without stream waits for the end of its turn. Then it returns the unfinished response.
#: OpenAI's client times out after 600 seconds and sends the request again, which would start a second turn.
MAX_WAIT = 540.0


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """An accepted turn, its events, the response headers that name it, and what to do when its client disconnects."""

    accepted: AcceptedTurn
    event_batches: EventBatches
    headers: dict[str, str]
    on_disconnect: OnDisconnect | None

    @property
    def response(self) -> Response:
        """The response as it was accepted."""
        return self.accepted.response


async def start(request: Request, turn: NewTurn, *, stream: bool) -> StartedTurn:
    """Accept a turn. Raises the errors of `start_turn`, and LimitExceeded if the limit of open streams is reached."""
    response_id, job_id = request.new_id("resp"), request.new_id("job")
    headers = job_headers(job_id, response_id)
    on_client_disconnect = on_disconnect(request.headers, partial(cancel_job, request, job_id))
    if stream:
        request.stream_permit.acquire()
    tail = request.platform.tail
    follower = tail.subscribe(job_id)  # before the first event, so that no history has to be read
    request.cleanup.callback(tail.unsubscribe, job_id, follower)

    def accept() -> AcceptedTurn:
        shares_fields = request.platform.compatibility.at_least(SINCE)
        with _tokens_drawn(request, turn) as admission:
            headers.update(admission.headers)
            accepted = start_turn(
                request.platform.database,
                request.caller,
                turn,
                response_id,
                job_id,
                replace(request.allowance, estimated_tokens=admission.estimated_tokens),
                repeat=request.repeat,
                shares_fields=shares_fields,
            )
        request.platform.queue.announce_job(job_id, accepted.opening_events, request.caller.account_id)
        if accepted.interrupted is not None:
            request.platform.queue.announce_cancellation(accepted.interrupted, request.caller.account_id)
        return accepted

    accepted = await run_in_thread(accept)
    follower.push_opening(accepted.opening_events)
    event_batches = tail.follow(job_id, follower=follower, owner=request.caller.account_id)
    return StartedTurn(accepted, event_batches, headers, on_client_disconnect)


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
        deleted = responses.delete(connection, response.id, response.account_id)
    if deleted:
        request.platform.queue.forget_journal(response.job_id)


@contextmanager
def _tokens_drawn(request: Request, turn: NewTurn) -> Iterator[Admission]:
    """Draw the most tokens of the answer from the limit per minute. Return what was drawn if the turn is refused."""
    gate, most = request.platform.gate, turn.request["max_output_tokens"] or 0
    if request.repeat != "first":
        most = 0  # an earlier request has drawn it
    admission = gate.draw_answer(request.admission, min(most, request.platform.settings.context))
    try:
        yield admission
    except RequestError:  # after other errors the turn may exist: its end returns what it does not use
        gate.give_back(admission)
        raise
