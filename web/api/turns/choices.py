"""The choices of a completion, each of which is a turn: merge their streams, wait for them, cancel and delete them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson

from models.platform.errors import JobFailed, RequestError, Unavailable
from pipelines.chat.response_types import ResponseObject
from web.api.job_results import cancel_job
from web.api.request import Request
from web.api.turns.choice_chunks import ChoiceChunks
from web.api.turns.retries import store_state
from web.api.turns.started_turn import StartedTurn, on_delivered, wait_for_end
from web.http.disconnects import run_in_background
from web.http.threads import run_in_thread
from web.streams.sse import EventStream, Frame
from web.streams.waiting import Wait, as_comment

Item = TypeVar("Item")

#: Returns the error of a response that has no answer, or None.
ErrorOf = Callable[[Mapping[str, Any]], RequestError | JobFailed | None]


def stream_choices(request: Request, choices: Sequence[StartedTurn], chunks: Sequence[ChoiceChunks]) -> EventStream:
    """Return the stream of the chunks of all choices."""
    return EventStream(
        _frames(request, choices, chunks),
        request.platform.streams,
        headers_of(choices),
        on_disconnect=choices[0].on_disconnect,
        final_frame=chunks[0].interrupted(),
        wait=Wait(choices[0].response.job_id, as_comment),
    )


async def _frames(
    request: Request, choices: Sequence[StartedTurn], chunks: Sequence[ChoiceChunks]
) -> AsyncIterator[Frame]:
    """Yield the chunks of all choices; events that arrive together become one frame."""
    if first_frame := b"".join([choice.first_chunk() for choice in chunks]):
        yield first_frame
    events_of = interleave([choice.event_batches for choice in choices])
    try:
        async for index, events in events_of:
            if frames := b"".join([frame for event in events for frame in chunks[index].frames(event)]):
                yield frames
            if chunks[index].failed or chunks[index].diverged:
                await _end_early(request, choices, index, failed=chunks[index].failed)
                return
            if all(choice.ended for choice in chunks):
                delete_unstored(request, choices)
                return
    finally:
        await events_of.aclose()
    yield chunks[0].interrupted()


async def _end_early(request: Request, choices: Sequence[StartedTurn], index: int, *, failed: bool) -> None:
    """Cancel the other choices; a turn that has `failed` is deleted, one that diverged can be read."""
    if failed:
        delete_failed(request, choices[index])
    await cancel_all(request, [choice for choice in choices if choice is not choices[index]])


async def interleave(sources: Sequence[AsyncIterator[Item]]) -> AsyncGenerator[tuple[int, Item], None]:
    """Yield the items of the sources as they arrive, each with the number of its source."""
    if len(sources) == 1:
        async for item in sources[0]:
            yield 0, item
        return
    pending = {asyncio.ensure_future(anext(source)): number for number, source in enumerate(sources)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=pending.__getitem__):
                number = pending.pop(future)
                if isinstance(error := future.exception(), StopAsyncIteration):
                    continue
                if error is not None:
                    raise error
                pending[asyncio.ensure_future(anext(sources[number]))] = number
                yield number, future.result()
    finally:
        for future in pending:
            future.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def wait_for_all(request: Request, choices: Sequence[StartedTurn], error_of: ErrorOf) -> list[ResponseObject]:
    """Wait until all turns have ended. If one of them has no answer, the others are cancelled, and its error is raised.

    Raises Unavailable when the process shuts down.
    """
    waits = [asyncio.create_task(_wait(request, choice, error_of)) for choice in choices]
    try:
        responses = await asyncio.gather(*waits)
    except (JobFailed, RequestError):
        await cancel_all(request, choices if len(choices) > 1 else ())
        raise
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    delete_unstored(request, choices)
    return responses


async def _wait(request: Request, choice: StartedTurn, error_of: ErrorOf) -> ResponseObject:
    at_end = await wait_for_end(request, choice)
    if not at_end.ended and request.platform.streams.closing:
        raise Unavailable(
            f"The server is shutting down; the turn continues. Read it at GET /v1/responses/{choice.response.id}."
        )
    response: ResponseObject = orjson.loads(at_end.json)
    if (error := error_of(response)) is not None:
        if at_end.ended:
            delete_failed(request, choice)
        raise error
    return response


async def cancel_all(request: Request, choices: Sequence[StartedTurn]) -> None:
    """Cancel those of the turns that have not ended."""
    for choice in choices:
        await run_in_thread(cancel_job, request, choice.response.job_id)


def delete_failed(request: Request, choice: StartedTurn) -> None:
    """Delete a failed turn that is not stored, and store for retries that its request has failed."""
    run_in_background(partial(store_state, request, choice.seed, "failed"))
    delete_unstored(request, [choice])


def delete_unstored(request: Request, choices: Sequence[StartedTurn]) -> None:
    """Delete ended turns that are not stored, in a background thread."""
    deletions = [delete for choice in choices if (delete := on_delivered(request, choice.response)) is not None]
    if deletions:
        run_in_background(partial(_call_all, deletions))


def _call_all(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()


def headers_of(choices: Sequence[StartedTurn]) -> dict[str, str]:
    """Return the response headers, which name the jobs and responses of all turns."""
    names = ("x-sangha-job-id", "x-sangha-response-id")
    return {**choices[0].headers, **{name: ", ".join(choice.headers[name] for choice in choices) for name in names}}
