"""A turn begins: its row and its job in one transaction, with what its stream begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models import conversations, responses
from models.accounts import Caller
from models.database import Database
from models.errors import InvalidRequest, NotFound
from models.events import Event, event
from models.ids import new_id
from models.jobs import NewJob, enqueue
from models.responses import Response
from pipelines.chat.objects import response_object


@dataclass(frozen=True, slots=True)
class NewTurn:
    """What is asked.

    `input` are items of the types message, function_call and function_call_output, each with an id. `request` has the
    keys below; the first eight are always there, the others stand for OpenAI's default where they are missing.

        model, instructions, background, metadata, temperature, top_p, max_output_tokens, user
        tools                the function tools, in the Responses API's form
        tool_choice          "auto", "none", "required", or {"type": "function", "name": …}
        parallel_tool_calls  a boolean
        text                 {"format": {"type": "text" | "json_object" | "json_schema", …}}
        truncation           "auto": forget the oldest turns; "disabled": fail with context_length_exceeded
        store                False: forget the turn once it has been read
        seed, stop           of the sampling: an integer; a list of texts
        service_tier, safety_identifier, prompt_cache_key, include   shown again, without effect
    """

    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    conversation_id: str | None = None
    previous_id: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A turn that is accepted: nothing that dies from here on loses it."""

    response: Response
    opening: list[Event]


def start(database: Database, caller: Caller, turn: NewTurn, response_id: str, job_id: str) -> Started:
    """Accept a turn. Tell the queue afterwards.

    Raises NotFound for a conversation, and InvalidRequest for a previous response, that the account doesn't have.
    """
    thread = _thread(database, caller, turn) or response_id
    response = Response(
        id=response_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        job_id=job_id,
        conversation_id=turn.conversation_id,
        previous_id=turn.previous_id,
        thread=thread,
        request=dict(turn.request),
        input=[dict(item) for item in turn.input],
        created_at=datetime.now(UTC),
    )
    opening = opening_events(response)
    job = NewJob(
        kind="turn.run",
        account_id=caller.account_id,
        arguments={"response_id": response_id},
        id=job_id,
        serial_key=thread,
        opening=opening,
    )
    with database.batch() as connection:
        enqueue(connection, job)
        responses.insert(connection, response)
    return Started(response, opening)


def opening_events(response: Response) -> list[Event]:
    """What the stream of a turn begins with, before any worker has moved."""
    shown = {"response": response_object(response)}
    return [event(0, "response.created", shown), event(1, "response.queued", shown)]


def _thread(database: Database, caller: Caller, turn: NewTurn) -> str | None:
    if turn.conversation_id is not None:
        with database.connection() as connection:
            if conversations.read(connection, turn.conversation_id, caller.account_id) is None:
                raise NotFound(f"There is no conversation {turn.conversation_id!r}.", param="conversation")
        return turn.conversation_id
    if turn.previous_id is not None:
        with database.connection() as connection:
            previous = responses.read(connection, turn.previous_id, caller.account_id)
        if previous is None:
            raise InvalidRequest(
                f"Previous response with id {turn.previous_id!r} not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return previous.thread
    return None


def new_turn_ids() -> tuple[str, str]:
    """The ids of a new response and of its job."""
    return new_id("resp"), new_id("job")
