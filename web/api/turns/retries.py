"""Join a retry to the turns of its original request, so that they run and are billed once.

Two users of an application may send the same request with one API key. So a retry joins only where it can belong to
one original request alone. Of several, those whose turns were answered while their client was connected do not count.
Where another one remains, or one has failed, the retry creates turns of its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import redis

from models.access import original_requests
from models.access.original_requests import OriginalRequest, State
from models.platform.ids import IdGenerator
from models.platform.redis_cluster import Command
from models.turns import abandoned_turns
from models.turns.abandoned_turns import Outcome
from pipelines.chat.new_turn import AcceptedTurn, NewTurn, TurnIds
from pipelines.chat.start_turn import find_accepted
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
    store_state(request, candidate.original.seed, "open")
    return JoinedTurns(accepted, candidate.original.seed)


def add_commands(request: Request) -> list[Command]:
    """Return the Redis commands that record the request as an original one, so that its retries find it."""
    retriable = request.retriable
    if retriable is None:
        return []
    return original_requests.add_commands(retriable.fingerprint(), OriginalRequest(retriable.seed))


def store_state(request: Request, seed: str | None, state: State) -> None:
    """Store the state of an original request, if it has no Idempotency-Key. Without Redis a retry joins nothing."""
    if request.retriable is not None and seed is not None:
        with suppress(redis.RedisError):
            original = OriginalRequest(seed, state)
            original_requests.store(request.platform.redis, request.retriable.fingerprint(), original)


def _find_candidates(request: Request, turns: Sequence[NewTurn]) -> list[Candidate]:
    """Return the original requests that this one may repeat, whatever became of their turns."""
    retriable = request.retriable
    if retriable is None or not (retriable.is_retry or is_unreadable(turns[0])):
        return []
    with suppress(redis.RedisError):
        originals = original_requests.find_all(request.platform.redis, retriable.fingerprint())
        if retriable.is_retry or any(original.state == "disconnected" for original in originals):
            return [Candidate(each, new_ids(IdGenerator(each.seed), len(turns))) for each in originals]
    return []


def _only_candidate(request: Request, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the only candidate whose turns can be joined; None if there are none or several.

    A request that has failed is a candidate, too: the retry may be its own, and then it has nothing to join.
    """
    if not candidates:
        return None
    outcomes = _read_outcomes(request, [job_id for candidate in candidates for job_id in candidate.job_ids])
    if any(_has_failed(candidate, outcomes) for candidate in candidates):
        return None
    usable = [candidate for candidate in candidates if _is_usable(candidate, outcomes)]
    if len(usable) > 1:
        usable = [candidate for candidate in usable if not _is_answered(candidate, outcomes)]
    return usable[0] if len(usable) == 1 else None


def _has_failed(candidate: Candidate, outcomes: Mapping[str, Outcome]) -> bool:
    """Return whether the request was rejected, or a turn of it has failed."""
    failed = any(outcomes.get(job_id) == "failed" for job_id in candidate.job_ids)
    return failed or candidate.original.state == "failed"


def _is_usable(candidate: Candidate, outcomes: Mapping[str, Outcome]) -> bool:
    """Return whether all turns exist and have an answer, or can still get one."""
    return all(outcomes.get(job_id) in ("open", "answered") for job_id in candidate.job_ids)


def _is_answered(candidate: Candidate, outcomes: Mapping[str, Outcome]) -> bool:
    """Return whether the turns have been answered while their client was connected."""
    answered = all(outcomes[job_id] == "answered" for job_id in candidate.job_ids)
    return answered and candidate.original.state != "disconnected"


def _keep(request: Request, candidate: Candidate) -> bool:
    """Keep turns from being cancelled. Returns whether they can be joined: not if they are cancelled just now."""
    with request.platform.database.connection() as connection:
        kept = abandoned_turns.keep(connection, candidate.job_ids, request.caller.account_id)
    abandoned = candidate.original.state == "disconnected" and len(kept) == len(candidate.ids)
    if not abandoned and not (request.retriable and request.retriable.is_retry):
        return False
    return _is_usable(candidate, _read_outcomes(request, candidate.job_ids))


def _read_outcomes(request: Request, job_ids: Sequence[str]) -> dict[str, Outcome]:
    account_id, max_age = request.caller.account_id, original_requests.KEPT
    with request.platform.database.connection() as connection:
        return abandoned_turns.read_outcomes(connection, job_ids, account_id, max_age)


def _read_turns(request: Request, ids: Sequence[TurnIds]) -> list[AcceptedTurn]:
    database, caller = request.platform.database, request.caller
    existing = [find_accepted(database, caller, response_id, "unanswered") for response_id, _ in ids]
    return [turn for turn in existing if turn is not None]
