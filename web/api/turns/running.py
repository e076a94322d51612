"""A turn at the door, whichever API asks for it: begun, waited for, and forgotten once it has been read."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import orjson
from starlette.concurrency import run_in_threadpool

from models.platform.errors import NotFound
from models.turns import responses
from models.turns.responses import Response
from pipelines.chat.response_objects import ResponseObject, response_object
from pipelines.chat.start import AcceptedTurn, NewTurn, start_turn
from web.access import idempotency
from web.api.job_events import EventBatches
from web.api.job_results import cancel_job, job_headers
from web.api.request import Request
from web.http.disconnects import OnDisconnect, on_disconnect
from web.http.validation import truncate

#: Seconds that a plain create waits for its answer. Then it says how far it is; the turn goes on.
#: OpenAI's client gives up after 600 and posts the same again: a second turn.
MAX_WAIT = 540.0


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was accepted, its events, the headers that name it, and what to do when its client leaves."""

    accepted: AcceptedTurn
    event_batches: EventBatches
    headers: dict[str, str]
    on_disconnect: OnDisconnect | None

    @property
    def response(self) -> Response:
        """The turn as it began."""
        return self.accepted.response


async def start(request: Request, turn: NewTurn, *, stream: bool) -> StartedTurn:
    """Accept a turn. Raises what `start` does, and TooMany when there is no seat for another stream."""
    response_id, job_id = request.new_id("resp"), request.new_id("job")
    leave = on_disconnect(request.headers, partial(cancel_job, request, job_id))
    if stream:
        request.stream_permit.acquire()
    tail = request.platform.tail
    follower = tail.subscribe(job_id)  # before there is anything to hear: so nothing has to be looked up
    request.cleanup.callback(tail.unsubscribe, job_id, follower)

    def accept() -> AcceptedTurn:
        started = start_turn(
            request.platform.database,
            request.caller,
            turn,
            response_id,
            job_id,
            request.allowance,
            repeat=request.repeat,
        )
        request.platform.queue.announce_job(job_id, started.opening_events)
        if started.interrupted is not None:
            request.platform.queue.announce_cancellation(started.interrupted)
        return started

    started = await run_in_threadpool(accept)
    follower.push_opening(started.opening_events)
    told = tail.follow(job_id, follower=follower)
    return StartedTurn(started, told, job_headers(job_id, response_id), leave)


async def wait_for_end(request: Request, begun: StartedTurn) -> ResponseObject:
    """The response once it has ended, told by its journal; no connection is held meanwhile.

    As far as it is, when that takes longer than `LONGEST_WAIT` or the process leaves.
    """
    try:
        async with asyncio.timeout(MAX_WAIT):
            shown = await _final_response(begun.event_batches)
    except TimeoutError:
        shown = None
    if shown is not None:
        return shown
    return response_object(await run_in_threadpool(read_response, request, begun.response.id))


async def _final_response(told: EventBatches) -> ResponseObject | None:
    async for events in told:
        if events[-1].ends:
            shown: ResponseObject | None = orjson.loads(events[-1].data).get("response")
            return shown
    return None


def read_response(request: Request, response_id: str) -> Response:
    """A response of the caller's account. Raises NotFound."""
    with request.platform.database.connection() as connection:
        response = responses.read(connection, response_id, request.caller.account_id)
    if response is None:
        raise NotFound(f"Response with id '{truncate(response_id)}' not found.", param="response_id")
    return response


def on_delivered(request: Request, response: Response) -> Callable[[], None] | None:
    """What to do once a client has the end of a response; nothing where an Idempotency-Key may ask for it again."""
    asks_again = idempotency.HEADER in request.headers
    return None if response.expires_at is None or asks_again else partial(_delete, request, response)


def _delete(request: Request, response: Response) -> None:
    """Delete a response that has ended. Should this not come to pass, the sweeper does it."""
    with request.platform.database.connection() as connection:
        deleted = responses.delete(connection, response.id, response.account_id)
    if deleted:
        request.platform.queue.forget_journal(response.job_id)
