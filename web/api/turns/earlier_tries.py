"""Handle clients that disconnect and retry: a retry joins the turns of its first try; abandoned turns are cancelled.

A turn is abandoned if its client disconnects and nobody can read its answer later: it is not stored, has no
conversation and no Idempotency-Key. It continues for a few seconds, in which a retry may join it.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import redis

from models.access import recent_requests
from models.platform.errors import Unavailable
from models.platform.ids import IdGenerator
from models.platform.redis_cluster import Command
from models.turns import abandoned_turns
from models.turns.responses import Response
from pipelines.chat.start_turn import AcceptedTurn, NewTurn, find_accepted
from web.api.job_results import cancel_job
from web.api.request import Request
from web.http.disconnects import DisconnectPolicy, OnDisconnect
from web.http.threads import run_in_thread

log = logging.getLogger(__name__)

#: The ids of a turn: of its response and its job.
TurnIds = tuple[str, str]


def new_ids(ids: IdGenerator, count: int) -> list[TurnIds]:
    """Return ids for the turns of a request."""
    return [(ids.new("resp"), ids.new("job")) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class JoinedTurns:
    """The turns of an earlier try, and the seed of their ids."""

    turns: list[AcceptedTurn]
    seed: str


def join_earlier(request: Request, turns: Sequence[NewTurn]) -> JoinedTurns | None:
    """Return the turns that an earlier try of the request has created; None if there are none to join.

    A try that is not marked as a retry joins only abandoned turns. Failed turns are never joined.
    """
    earlier = _find_earlier(request, turns)
    if earlier is None:
        return None
    ids = new_ids(IdGenerator(earlier.seed), len(turns))
    if not _keep(request, [job_id for _, job_id in ids]):
        return None
    database, caller = request.platform.database, request.caller
    existing = [find_accepted(database, caller, response_id, "tried") for response_id, _ in ids]
    accepted = [turn for turn in existing if turn is not None]
    if len(accepted) < len(turns):  # deleted meanwhile, because another client has received the answer
        return None
    record_try(request, earlier.seed, left=False)
    return JoinedTurns(accepted, earlier.seed)


def _find_earlier(request: Request, turns: Sequence[NewTurn]) -> recent_requests.RecentRequest | None:
    request_try = request.request_try
    if request_try is None or not (request_try.is_retry or is_unreadable(turns[0])):
        return None
    with suppress(redis.RedisError):
        earlier = recent_requests.find(request.platform.redis, request_try.fingerprint())
        return earlier if earlier is not None and (earlier.left or request_try.is_retry) else None
    return None


def _keep(request: Request, job_ids: Sequence[str]) -> bool:
    """Keep turns from being cancelled. Returns whether the request may join them."""
    account_id, request_try = request.caller.account_id, request.request_try
    assert request_try is not None
    with request.platform.database.connection() as connection:
        kept = abandoned_turns.keep(connection, job_ids, account_id)
        return (len(kept) == len(job_ids) or request_try.is_retry) and abandoned_turns.are_usable(
            connection, job_ids, account_id
        )


def record_try_commands(request: Request) -> list[Command]:
    """Return the Redis commands that record the request, so that its retries find it."""
    request_try = request.request_try
    return [] if request_try is None else [recent_requests.record_command(request_try.fingerprint(), request_try.seed)]


def record_try(request: Request, seed: str, *, left: bool) -> None:
    """Record the seed of a request, and whether its client has `left`. Without Redis a retry creates another turn."""
    if request.request_try is not None:
        with suppress(redis.RedisError):
            recent_requests.record(request.platform.redis, request.request_try.fingerprint(), seed, left=left)


def is_unreadable(turn: NewTurn) -> bool:
    """Return whether nobody can read the answer after a disconnect, unless the request has an Idempotency-Key."""
    return turn.request.get("store", True) is False and turn.conversation_id is None


def disconnect_action(
    request: Request, policy: DisconnectPolicy, job_ids: Sequence[str], *, seed: str | None = None
) -> OnDisconnect | None:
    """Return the function to call when the client of turns disconnects; None if the turns continue.

    seed  of the ids of turns that nobody can read later; None for other turns
    """
    if policy == "cancel":
        return partial(run_in_thread, partial(_cancel, request, job_ids))
    return None if policy == "finish" or seed is None else partial(_abandon_unless_closing, request, job_ids, seed)


async def _abandon_unless_closing(request: Request, job_ids: Sequence[str], seed: str) -> None:
    if not request.platform.streams.closing:  # the clients of a process that shuts down have not disconnected
        await run_in_thread(_abandon, request, job_ids, seed)


def _abandon(request: Request, job_ids: Sequence[str], seed: str) -> None:
    try:
        with request.platform.database.connection() as connection:
            abandoned_turns.abandon(connection, job_ids, request.caller.account_id)
    except Unavailable as error:
        log.warning("Request %s: cannot abandon its turns, which continue: %s", request.request_id, error)
        return
    if seed:
        record_try(request, seed, left=True)


def _cancel(request: Request, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        cancel_job(request, job_id)


def keep_turn(request: Request, response: Response) -> OnDisconnect | None:
    """Keep a response from being cancelled, because a client reads it. Returns the function for its disconnect."""
    if response.ended or response.expires_at is None:
        return None
    with request.platform.database.connection() as connection:
        kept = abandoned_turns.keep(connection, [response.job_id], response.account_id)
    return partial(_abandon_unless_closing, request, [response.job_id], "") if kept else None
