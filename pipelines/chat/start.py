"""A turn begins: its row and its job in one transaction, with what its stream begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from psycopg.errors import UniqueViolation

from models.access.idempotency import PriorUse
from models.access.rate_limits import token_draw_arguments
from models.accounts.accounts import Caller
from models.accounts.plans import UNLIMITED, Allowance
from models.jobs.cancellation import Cancellation
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_quota, check_unfinished_jobs, max_billable_tokens
from models.journal.events import Event, event
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, LimitExceeded, NotFound
from models.platform.ids import new_id
from models.turns import responses
from models.turns.responses import UNREAD_SECONDS, Response
from pipelines.chat.memory_prompt import memory_token_limit, recall_enabled, remember_enabled
from pipelines.chat.response_objects import response_object
from pipelines.chat.thread import BusyPolicy, apply_busy_policy, find_thread, resolve_items


@dataclass(frozen=True, slots=True)
class NewTurn:
    """What is asked.

    `input` are items of the types message, function_call, function_call_output and item_reference; `start` gives them
    ids. `if_busy` says what to do while an earlier turn of the same conversation or chain is unfinished. `request` has
    the keys below; the first eight are always there, the others stand for OpenAI's default where they are missing.

        model, instructions, background, metadata, temperature, top_p, max_output_tokens, user
        tools                the function tools, in the Responses API's form
        tool_choice          "auto", "none", "required", or {"type": "function", "name": …}
        parallel_tool_calls  a boolean
        text                 {"format": {"type": "text" | "json_object" | "json_schema", …}}
        truncation           "auto": forget the oldest turns; "disabled": fail with context_length_exceeded
        store                False: forget the turn once it has been read
        memory               {"recall": …, "remember": …, "limit": …}: see `pipelines.chat.memory_prompt`
        seed, stop           of the sampling: an integer; a list of texts
        max_tool_calls, safety_identifier, prompt_cache_key   shown again, without effect
    """

    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    conversation_id: str | None = None
    previous_id: str | None = None
    if_busy: BusyPolicy = "queue"


@dataclass(frozen=True, slots=True)
class AcceptedTurn:
    """A turn that is accepted: nothing that dies from here on loses it.

    interrupted  turns that were stopped to make way for it; the queue is to be told
    """

    response: Response
    opening_events: list[Event]
    interrupted: Cancellation | None = None


def start_turn(
    database: Database,
    caller: Caller,
    turn: NewTurn,
    response_id: str,
    job_id: str,
    allowance: Allowance = UNLIMITED,
    *,
    repeat: PriorUse = "first",
) -> AcceptedTurn:
    """Accept a turn. Tell the queue afterwards.

    What stands under these ids already is this very turn, asked for again: it is told as it was when it began, and has
    nothing to tell the queue but a nudge.

    Raises NotFound for a conversation, and InvalidRequest for a previous response or an item, that the account doesn't
    have, Conflict for a busy thread that the caller doesn't want to wait for,
    TooMany and InsufficientQuota for what the allowance doesn't have.
    """
    if repeat != "first" and (existing := _existing(database, caller, response_id, repeat)) is not None:
        return existing
    with database.connection() as connection:
        made = _prepare(connection, caller, turn, response_id, job_id, allowance)
    try:
        with database.batch() as connection:
            find_thread(connection, caller.account_id, turn.conversation_id, turn.previous_id)
            interrupted = _insert(connection, turn, made, allowance)
    except (UniqueViolation, Conflict, LimitExceeded):  # it may be this very turn that is in the way
        if (existing := _existing(database, caller, response_id, "tried")) is None:
            raise
        return existing
    return AcceptedTurn(made.response, made.opening_events, interrupted)


def start_turn_in(
    connection: Connection, caller: Caller, turn: NewTurn, allowance: Allowance = UNLIMITED
) -> AcceptedTurn:
    """Accept a turn in the caller's transaction, as a schedule does. Tell the queue after its commit.

    Raises what `start` does.
    """
    made = _prepare(connection, caller, turn, *new_turn_ids(), allowance)
    return AcceptedTurn(made.response, made.opening_events, _insert(connection, turn, made, allowance))


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A turn that has still to be inserted. `thread` is what it goes on with, None where it begins one."""

    response: Response
    job: NewJob
    thread: str | None

    @property
    def opening_events(self) -> list[Event]:
        """What its stream begins with."""
        return list(self.job.opening)


def _prepare(
    connection: Connection, caller: Caller, turn: NewTurn, response_id: str, job_id: str, allowance: Allowance
) -> PreparedTurn:
    thread = find_thread(connection, caller.account_id, turn.conversation_id, turn.previous_id)
    items = resolve_items(connection, caller.account_id, response_id, turn.input)
    now = datetime.now(UTC)
    response = Response(
        id=response_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        job_id=job_id,
        conversation_id=turn.conversation_id,
        previous_id=turn.previous_id,
        thread=thread or response_id,
        request=dict(turn.request),
        input=items,
        created_at=now,
        expires_at=None if turn.request.get("store", True) else now + timedelta(seconds=UNREAD_SECONDS),
        unremembered=bool(turn.request.get("store", True) and remember_enabled(turn.request)),
    )
    job = NewJob(
        kind="turn.run",
        account_id=caller.account_id,
        arguments={
            "response_id": response_id,
            **token_draw_arguments(caller.key_id, allowance.limits.tokens_per_minute, allowance.charged),
        },
        id=job_id,
        serial_key=thread or response_id,
        opening=_opening_events(response),
        reserved_tokens=_reservation(turn, items, allowance, history=thread is not None),
    )
    return PreparedTurn(response, job, thread)


def _insert(connection: Connection, turn: NewTurn, made: PreparedTurn, allowance: Allowance) -> Cancellation | None:
    """Insert a turn if it has its place and its room; what was stopped to make way for it."""
    account_id = made.response.account_id
    interrupted = apply_busy_policy(connection, account_id, made.thread, turn.if_busy)
    check_unfinished_jobs(connection, account_id, allowance.limits, made.thread)
    check_quota(connection, account_id, allowance.limits, made.job.reserved_tokens)
    enqueue(connection, made.job)
    responses.insert(connection, made.response)
    return interrupted


def _existing(database: Database, caller: Caller, response_id: str, repeat: PriorUse) -> AcceptedTurn | None:
    """The turn as it was when it began, if it stands. Raises NotFound for one that was answered and is gone."""
    with database.connection() as connection:
        found = responses.read(connection, response_id, caller.account_id)
    if found is None and repeat == "answered":
        raise NotFound(f"Response with id '{response_id}' was made under this Idempotency-Key and is gone since.")
    if found is None:
        return None
    begun = replace(found, job_state="queued", job_attempt=0, job_error=None, output=[], usage=None)
    return AcceptedTurn(replace(begun, incomplete_details=None), [])


def _reservation(turn: NewTurn, items: Sequence[Mapping[str, Any]], allowance: Allowance, *, history: bool) -> int:
    """The turn's worst case, where a month has a limit."""
    if allowance.limits.tokens_per_month is None:
        return 0
    brought = orjson.dumps([*items, *(turn.request.get(name) for name in ("instructions", "tools", "text"))])
    output, context = turn.request["max_output_tokens"], allowance.context
    quotes = memory_token_limit(turn.request, context) if recall_enabled(turn.request) else 0
    return max_billable_tokens(len(brought) + quotes, len(items) + 1, output=output, context=context, history=history)


def _opening_events(response: Response) -> list[Event]:
    """What the stream of a turn begins with, before any worker has moved."""
    shown = {"response": response_object(response)}
    return [event(0, "response.created", shown), event(1, "response.queued", shown)]


def new_turn_ids() -> tuple[str, str]:
    """The ids of a new response and of its job."""
    return new_id("resp"), new_id("job")
