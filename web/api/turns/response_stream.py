"""Streams of responses: the events of OpenAI's API, or with `X-Sangha-Events: all` every event of the journal."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from models.platform.errors import InvalidRequest
from models.turns.responses import Response
from web.api.job_events import EventBatches, event_frames
from web.api.request import Request
from web.api.turns.standard_events import StandardEvents, find_last_restart
from web.streams.sse import DONE, Frame

#: The header that asks for all events, and its value.
HEADER, ALL = "X-Sangha-Events", "all"


def wants_all_events(request: Request) -> bool:
    """Return whether the client asked also for the events that OpenAI's API does not have. Raises InvalidRequest."""
    value = request.headers.get(HEADER)
    if value not in (None, ALL):
        raise InvalidRequest(f"'{HEADER}' should be '{ALL}'.", param=HEADER)
    return value is not None


async def standard_events(
    request: Request, response: Response, received: int = -1, *, may_have_restarted: bool
) -> StandardEvents:
    """Return the conversion of a response's events for a client that has received those up to `received`.

    A client that has received nothing reads the answer from its last restart on.
    """
    if received >= 0 or not may_have_restarted:
        return StandardEvents(response.id, received)
    pages = request.platform.tail.present_events(response.job_id, owner=request.caller.account_id)
    async with aclosing(pages):
        return StandardEvents(response.id, restart=await find_last_restart(pages))


def response_frames(
    batches: EventBatches, standard: StandardEvents | None, on_delivered: Callable[[], object] | None
) -> AsyncIterator[Frame]:
    """Yield a turn's events as frames: `standard` ones, or all. `on_delivered`: see `event_frames`."""
    if standard is None:
        return event_frames(batches, on_delivered=on_delivered)
    return _standard_frames(batches, standard, on_delivered)


async def _standard_frames(
    batches: EventBatches, standard: StandardEvents, on_delivered: Callable[[], object] | None
) -> AsyncIterator[Frame]:
    async for frame in event_frames(_standard_batches(batches, standard), on_delivered=on_delivered):
        yield frame
    if standard.ended:
        yield DONE


async def _standard_batches(batches: EventBatches, standard: StandardEvents) -> EventBatches:
    async for events in batches:
        if converted := standard.convert(events):
            yield converted
        if standard.ended:
            return
