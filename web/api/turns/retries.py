"""Join a retry to the turns of its original request, so that they run and are billed once.

Two users of an application may send the same request with one API key. So a retry joins only where it can belong to
one original request alone. Of several, those whose turns have completed while their client was connected have got
their answer, and do not count. Where more than one remains, the retry creates turns of its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.access import original_requests
from models.access.original_requests import OriginalRequest
from models.platform.ids import IdGenerator
from models.platform.redis_cluster import Command
from models.turns import abandoned_turns
from pipelines.chat.start_turn import AcceptedTurn, NewTurn, TurnIds, find_accepted
from web.api.request import Request


def new_ids(ids: IdGenerator, count: int) -> list[TurnIds]:
    """Return ids for the turns of a request."""
    return [(ids.new("resp"), ids.new("job")) for _ in range(count)]


def is_unreadable(turn: NewTurn) -> bool:
    """Return whether nobody can read the answer after a disconnect, unless the request has an Idempotency-Key."""
    return turn.request.get("store", True) is False and turn.conversation_id is None


@dataclass(frozen=True, slots=True)
class JoinedTurns:
    """The turns of an original request, and the seed of their ids."""

    turns: list[AcceptedTurn]
    seed: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An original request that this one may repeat, and the ids of its turns."""

    original: OriginalRequest
    ids: list[TurnIds]

    @property
    def job_ids(self) -> list[str]:
        """The ids of the turns' jobs."""
        return [job_id for _, job_id in self.ids]


def join_original(request: Request, turns: Sequence[NewTurn]) -> JoinedTurns | None:
    """Return the turns of the original request; None if there are none to join.

    A request that is not numbered as a retry joins only abandoned turns. Failed turns are never joined.
    """
    candidate = _only_candidate(request, _find_candidates(request, turns))
    if candidate is None or not _keep(request, candidate):
        return None
    accepted = _read_turns(request, candidate.ids)
    if len(accepted) < len(turns):  # deleted meanwhile, because another client has received the answer
        return None
    mark_original(request, candidate.original.seed, disconnected=False)
    return JoinedTurns(accepted, candidate.original.seed)


def add_commands(request: Request) -> list[Command]:
    """Return the Redis commands that record the request as an original one, so that its retries find it."""
    retriable = request.retriable
    return [] if retriable is None else original_requests.add_commands(retriable.fingerprint(), retriable.seed)


def mark_original(request: Request, seed: str, *, disconnected: bool) -> None:
    """Record whether the client of an original request has disconnected. Without Redis a retry creates other turns."""
    if request.retriable is not None:
        with suppress(redis.RedisError):
            fingerprint = request.retriable.fingerprint()
            original_requests.mark(request.platform.redis, fingerprint, seed, disconnected=disconnected)


def _find_candidates(request: Request, turns: Sequence[NewTurn]) -> list[Candidate]:
    """Return the original requests that this one may repeat, whatever became of their turns."""
    retriable = request.retriable
    if retriable is None or not (retriable.is_retry or is_unreadable(turns[0])):
        return []
    with suppress(redis.RedisError):
        originals = original_requests.find_all(request.platform.redis, retriable.fingerprint())
        if retriable.is_retry or any(original.disconnected for original in originals):
            return [Candidate(each, new_ids(IdGenerator(each.seed), len(turns))) for each in originals]
    return []


def _only_candidate(request: Request, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the only candidate whose turns can be joined; None if there are none or several."""
    if not candidates:
        return None
    completed = _read_usable(request, [job_id for candidate in candidates for job_id in candidate.job_ids])
    usable = [candidate for candidate in candidates if completed.keys() >= set(candidate.job_ids)]
    if len(usable) > 1:
        usable = [each for each in usable if not _is_answered(each, completed)]
    return usable[0] if len(usable) == 1 else None


def _is_answered(candidate: Candidate, completed: Mapping[str, bool]) -> bool:
    """Return whether the turns have completed while their client was connected."""
    return not candidate.original.disconnected and all(completed[job_id] for job_id in candidate.job_ids)


def _keep(request: Request, candidate: Candidate) -> bool:
    """Keep turns from being cancelled. Returns whether they can be joined: not if they are cancelled just now."""
    with request.platform.database.connection() as connection:
        kept = abandoned_turns.keep(connection, candidate.job_ids, request.caller.account_id)
    abandoned = candidate.original.disconnected and len(kept) == len(candidate.ids)
    if not abandoned and not (request.retriable and request.retriable.is_retry):
        return False
    return len(_read_usable(request, candidate.job_ids)) == len(candidate.ids)


def _read_usable(request: Request, job_ids: Sequence[str]) -> dict[str, bool]:
    account_id, max_age = request.caller.account_id, original_requests.KEPT
    with request.platform.database.connection() as connection:
        return abandoned_turns.read_usable(connection, job_ids, account_id, max_age)


def _read_turns(request: Request, ids: Sequence[TurnIds]) -> list[AcceptedTurn]:
    database, caller = request.platform.database, request.caller
    existing = [find_accepted(database, caller, response_id, "tried") for response_id, _ in ids]
    return [turn for turn in existing if turn is not None]
