"""Accept a turn: insert its row, its job and the first events of its stream in one transaction."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import orjson
from psycopg.errors import UniqueViolation

from models.access.idempotency import PriorUse
from models.access.rate_limits import token_draw_arguments
from models.accounts.accounts import Caller
from models.accounts.ownership import Access
from models.accounts.plans import UNLIMITED, Allowance
from models.accounts.residency import strictest
from models.billing.spending import MostTokens, applicable_limits, reserve
from models.jobs import completion_windows
from models.jobs.budgets import BudgetLimits, open_budget
from models.jobs.cancellation import Cancellation
from models.jobs.jobs import NewJob
from models.jobs.quota import check_quota, check_unfinished_jobs, lock_account
from models.jobs.serial_keys import lock_serial_key
from models.jobs.usage import BACKGROUND, CLASS_ARGUMENT, KEY_ARGUMENT
from models.journal.events import Event, event
from models.journal.shared_fields import SINCE, Places, first_event, without_fields
from models.platform.compatibility import oldest_code
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, LimitExceeded, NotFound, SpendingLimitReached
from models.platform.ids import new_id
from models.serving.served_models import ServedModels
from models.turns import responses, web_processes
from models.turns.responses import UNREAD_SECONDS, Response
from pipelines.agents import definitions
from pipelines.agents.agent_turns import budget_of, deadline_of, engine_model, resolve_agent, served_by
from pipelines.agents.approval_answers import Answer, find_answers, take_answers
from pipelines.chat import job_model
from pipelines.chat.input_files import find_files
from pipelines.chat.memory_prompt import remember_enabled
from pipelines.chat.new_turn import AcceptedTurn, NewTurn, TurnIds
from pipelines.chat.response_objects import SHARED_ARGUMENT, response_object
from pipelines.chat.response_types import ResponseObject
from pipelines.chat.service_tiers import window_seconds
from pipelines.chat.thread import apply_busy_policy, find_thread, resolve_items
from pipelines.chat.turn_tokens import most_tokens, reserved_tokens
from pipelines.routing.enqueue import MOST_TOKENS, NewTurnRouting, SpillPlan
from pipelines.routing.residency import argument as residency_argument


def start_turn(
    database: Database, caller: Caller, turn: NewTurn, response_id: str, job_id: str, allowance: Allowance = UNLIMITED,
    *, repeat: PriorUse = "first", shares_fields: bool = False,
) -> AcceptedTurn:  # fmt: skip
    """Accept a turn. Announce its job to the queue after this. See `start_turns`."""
    ids = [(response_id, job_id)]
    (accepted,) = start_turns(database, caller, [turn], ids, allowance, repeat=repeat, shares_fields=shares_fields)
    return accepted


def start_turns(
    database: Database,
    caller: Caller,
    turns: Sequence[NewTurn],
    ids: Sequence[TurnIds],
    allowance: Allowance = UNLIMITED,
    *,
    repeat: PriorUse = "first",
    shares_fields: bool = False,
    web_process: str | None = None,
    routing: NewTurnRouting | None = None,
    models: ServedModels | None = None,
) -> list[AcceptedTurn]:
    """Accept the turns of a request, all or none. Announce their jobs to the queue after this.

    `allowance` is that of each turn. `shares_fields`: every process reads journals that have large fields once, as
    `models.journal.shared_fields` says. `web_process` is that of the client with whose disconnect they are cancelled.
    `routing` may let turns go to an endpoint at once.
    `models` are the known ones: without them the turns go to the queue of the default model.

    Where the ids exist already, this is a repetition of the same request: returns the turns as they were when they
    began, without opening events.

    Raises NotFound for a conversation, and InvalidRequest for a previous response or an item, that the caller doesn't
    have, Conflict for a busy thread with the policy `reject`, and LimitExceeded, InsufficientQuota and
    SpendingLimitReached for what exceeds the allowance.
    """
    existing = {} if repeat == "first" else _find_existing(database, caller, ids, repeat)
    missing = [(turn, each) for turn, each in zip(turns, ids, strict=True) if each not in existing]
    if not missing:
        return [existing[each] for each in ids]
    with database.connection() as connection:
        prepared = [
            prepare_turn(
                connection,
                caller,
                turn,
                *each,
                allowance,
                shares_fields=shares_fields,
                web_process=web_process,
                routing=routing,
                models=models,
            )
            for turn, each in missing
        ]
        limited = allowance.billed and _has_limits(connection, caller, allowance)
    try:
        accepted = _insert_all(
            database, caller, [turn for turn, _ in missing], prepared, replace(allowance, billed=limited), routing
        )
    except (UniqueViolation, Conflict, LimitExceeded, SpendingLimitReached):
        # The conflict may be with these same turns, inserted by an earlier request.
        if len(existing := _find_existing(database, caller, ids, "unanswered")) < len(ids):
            raise
        return [existing[each] for each in ids]
    new = dict(zip([each for _, each in missing], accepted, strict=True))
    return [existing.get(each) or new[each] for each in ids]


def start_turn_in_transaction(
    connection: Connection,
    caller: Caller,
    turn: NewTurn,
    allowance: Allowance = UNLIMITED,
    models: ServedModels | None = None,
) -> AcceptedTurn:
    """Accept a turn in the caller's transaction, as a schedule does. Announce its job after the commit.

    Raises what `start_turn` does.
    """
    shares_fields = oldest_code(connection) >= SINCE
    prepared = prepare_turn(
        connection, caller, turn, *new_turn_ids(), allowance, shares_fields=shares_fields, models=models
    )
    _reserve_money(connection, caller, [prepared], allowance)
    interrupted = _insert(connection, caller, turn, prepared, allowance)
    return AcceptedTurn(prepared.response, prepared.opening_events, interrupted)


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A turn that is not inserted yet.

    thread   the one it continues, None where it begins one
    budget   the limits of the tree of jobs that it begins; None: it has none
    answers  the decisions on calls of earlier turns that its input brings
    window   the seconds within which it is to be complete; None: as soon as possible
    """

    response: Response
    job: NewJob
    thread: str | None
    most_tokens: MostTokens
    budget: BudgetLimits | None = None
    answers: Sequence[Answer] = ()
    window: int | None = None

    @property
    def opening_events(self) -> list[Event]:
        """What its stream begins with."""
        return list(self.job.opening)


def prepare_turn(
    connection: Connection,
    caller: Caller,
    turn: NewTurn,
    response_id: str,
    job_id: str,
    allowance: Allowance,
    *,
    shares_fields: bool = False,
    web_process: str | None = None,
    routing: NewTurnRouting | None = None,
    models: ServedModels | None = None,
) -> PreparedTurn:
    """Return a turn to insert, with its job and the first events of its stream. Reads only.

    Raises NotFound and InvalidRequest as `start_turns` does.
    """
    request, definition = resolve_agent(connection, caller.account_id, turn.request, models)
    target = served_by(models, request)
    if target is not None:
        allowance = replace(allowance, context=target.description.context)
    turn = replace(turn, request=request)
    effective = replace(turn, request=definitions.apply(definition, request)) if definition else turn
    allowance.limits.check_model(engine_model(request))
    residency = strictest(caller.residency, effective.request.get("residency"))
    if routing is not None:
        routing.check_model(residency, caller.residency, engine_model(request))
    access = Access.own(caller)
    thread = find_thread(connection, access, turn.conversation_id, turn.previous_id)
    items = find_files(connection, caller, resolve_items(connection, access, response_id, turn.input))
    labels = None if definition else {tool.get("server_label") for tool in request.get("tools") or ()}
    answers = find_answers(connection, access, items, thread=thread, response_id=response_id, labels=labels)
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
        is_completion=turn.is_completion,
        unremembered=bool(turn.request.get("store", True) and remember_enabled(effective.request)),
        space=turn.space,
    )
    most = most_tokens(effective.request, items, allowance, definition, history=thread is not None)
    opening, shared = _opening_events(response_object(response), shares_fields=shares_fields)
    window = window_seconds(effective.request)
    job = NewJob(
        kind="turn.run",
        account_id=caller.account_id,
        owner_id=caller.user_id,
        arguments={
            "response_id": response_id,
            **job_model.argument(target, request),
            **({SHARED_ARGUMENT: shared} if shared else {}),
            **({web_processes.ARGUMENT: web_process} if web_process else {}),
            **({KEY_ARGUMENT: caller.key_id} if caller.key_id else {}),
            **residency_argument(residency),
            **({MOST_TOKENS: [most.input_tokens, most.output_tokens]} if most.input_tokens else {}),
            **({CLASS_ARGUMENT: most.service_class} if most.service_class == "priority" or window else {}),
            **token_draw_arguments(caller.key_id, allowance.limits.tokens_per_minute, allowance.estimated_tokens),
        },
        id=job_id,
        serial_key=thread or response_id,
        opening=opening,
        reserved_tokens=reserved_tokens(most, allowance),
        input_bytes=len(orjson.dumps([items, response.request])),
        deadline_at=deadline_of(definition) if definition else None,
        batch=most.service_class == BACKGROUND,
        first=most.service_class == "priority",
        queue=target.queue if target else None,
    )
    budget = budget_of(definition) if definition else None
    return PreparedTurn(response, job, thread, most, budget, answers, window)


def _insert_all(
    database: Database,
    caller: Caller,
    turns: Sequence[NewTurn],
    prepared: Sequence[PreparedTurn],
    allowance: Allowance,
    routing: NewTurnRouting | None,
) -> list[AcceptedTurn]:
    """Insert turns in one transaction."""
    accepted = []
    plans = [plan for each in prepared if routing and (plan := routing.plan(each.job))]
    with _connect(database, prepared, allowance, plans) as connection:
        lock_account(connection, caller.account_id, allowance.limits)  # before the jobs that they interrupt
        _reserve_money(connection, caller, prepared, allowance)
        for turn, each in zip(turns, prepared, strict=True):
            find_thread(connection, Access.own(caller), turn.conversation_id, turn.previous_id)
            interrupted = _insert(connection, caller, turn, each, allowance)
            accepted.append(AcceptedTurn(each.response, each.opening_events, interrupted))
        for plan in plans:
            plan.carry_out(connection)  # last: it locks the day's budget
    return accepted


def _connect(
    database: Database, prepared: Sequence[PreparedTurn], allowance: Allowance, plans: Sequence[SpillPlan]
) -> AbstractContextManager[Connection]:
    """Check out a connection, with a transaction if anything is locked or changed beside one insertion."""
    limited = allowance.limits.tokens_per_month is not None or allowance.billed
    changes_more = bool(prepared[0].budget or prepared[0].answers or prepared[0].window or plans) or limited
    alone = len(prepared) == 1 and prepared[0].thread is None and not changes_more
    return database.connection() if alone else database.batch()


def _insert(
    connection: Connection, caller: Caller, turn: NewTurn, prepared: PreparedTurn, allowance: Allowance
) -> Cancellation | None:
    """Insert a turn within its limits, and take the decisions that it brings. Returns the turns cancelled for it."""
    account_id = prepared.response.account_id
    interrupted = apply_busy_policy(connection, account_id, prepared.thread, turn.if_busy)
    size = prepared.job.total_bytes
    check_unfinished_jobs(connection, account_id, allowance.limits, prepared.thread, size=size)
    check_quota(connection, account_id, allowance.limits, prepared.job.reserved_tokens)
    if prepared.thread is not None:
        lock_serial_key(connection, prepared.thread)
    take_answers(connection, caller, prepared.answers, prepared.response.id)
    responses.insert_with_job(connection, prepared.response, prepared.job)
    if prepared.window is not None:
        completion_windows.insert(connection, prepared.job.id, prepared.window)
    if prepared.budget is not None:
        open_budget(connection, prepared.job.id, account_id, prepared.budget)
    return interrupted


def _find_existing(
    database: Database, caller: Caller, ids: Sequence[TurnIds], repeat: PriorUse
) -> dict[TurnIds, AcceptedTurn]:
    found = {each: find_accepted(database, caller, each[0], repeat) for each in ids}
    return {each: turn for each, turn in found.items() if turn is not None}


def find_accepted(database: Database, caller: Caller, response_id: str, repeat: PriorUse) -> AcceptedTurn | None:
    """Return the turn as it was accepted, if it exists. Raises NotFound for one that was answered and then deleted."""
    with database.connection() as connection:
        response = responses.read(connection, response_id, Access.own(caller))
    if response is None and repeat == "answered":
        raise NotFound(
            f"Response with id '{response_id}' was created with this Idempotency-Key and has been deleted since."
        )
    if response is None:
        return None
    initial = replace(response, job_state="queued", job_attempt=0, job_error=None, output=[], usage=None)
    return AcceptedTurn(replace(initial, incomplete_details=None, completed_at=None), [])


def _has_limits(connection: Connection, caller: Caller, allowance: Allowance) -> bool:
    required = allowance.method_required
    return bool(applicable_limits(connection, caller.account_id, caller.key_id, method_required=required))


def _reserve_money(
    connection: Connection, caller: Caller, prepared: Sequence[PreparedTurn], allowance: Allowance
) -> None:
    """Reserve the most that the turns can cost, where spending may be limited. Raises SpendingLimitReached."""
    if allowance.billed:
        most = {each.job.id: each.most_tokens for each in prepared}
        agent = (prepared[0].response.request.get("agent") or {}).get("name")
        required = allowance.method_required
        reserve(connection, caller.account_id, most, key_id=caller.key_id, agent=agent, method_required=required)


def _opening_events(response: ResponseObject, *, shares_fields: bool) -> tuple[list[Event], Places]:
    """Return the events that a turn's stream begins with, and the places of the fields that only the first one has."""
    created, places = first_event("response.created", response)
    places = places if shares_fields else {}
    return [created, event(1, "response.queued", without_fields({"response": response}, places))], places


def new_turn_ids() -> tuple[str, str]:
    """Return ids for a new response and its job."""
    return new_id("resp"), new_id("job")
