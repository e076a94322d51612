"""The router's pass: move turns that wait too long for a local model to an endpoint, and back when it is saturated.

Every scheduler runs it. An advisory lock lets one of them work at a time, and each move is a transaction of its own, so
a killed router leaves each turn in one queue. While no turn waits, a pass is one statement; without SANGHA_SPILL_TO it
is none.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from models.jobs.route_costs import PRICE_UNIT
from models.platform.database import Connection, Database, fetch_one
from models.platform.settings import Settings
from models.platform.upstreams import HOSTED_CONTEXT
from models.serving import breakers, moves
from models.serving.breakers import Breaker
from models.serving.moves import Candidate, MovedTurns, Reason, Target
from models.serving.queued_turns import QueuedTurn, any_waits, read_queued
from models.serving.queues import endpoint_queue, is_endpoint_queue
from models.serving.state import QueueState, ServingCache, ServingState
from pipelines.routing.policy import Situation, choose_spills, reason_of, returning

log = logging.getLogger(__name__)

#: Advisory lock of the router that works.
LOCK = 0x73616E6772

#: Most turns that a pass moves one way.
MOST_MOVES = 256


def target_of(settings: Settings) -> Target | None:
    """Return where turns are moved to; None: nothing spills."""
    if settings.spill_target is None:
        return None
    upstream, model = settings.spill_target
    return Target(
        upstream.name,
        model,
        is_local=upstream.is_local,
        default=settings.residency,
        price_input=upstream.price_input,
        price_output=upstream.price_output,
        money=settings.spill_money,
        share=settings.spill_share,
    )


class Outages:
    """For how long each queue has had no worker, as this process has seen it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def seconds(self, queue: str, state: QueueState) -> float:
        """Note the state of a queue. Returns the seconds since it was first seen without a worker; 0: it has one."""
        if state.threads > 0:
            self._since.pop(queue, None)
            return 0.0
        return self._clock() - self._since.setdefault(queue, self._clock())


NOTHING = MovedTurns()


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass has moved, and the lanes in which the relay should publish."""

    spilled: int = 0
    returned: int = 0
    lanes: frozenset[str] = frozenset()

    def plus(self, *, spilled: MovedTurns = NOTHING, returned: MovedTurns = NOTHING) -> "PassResult":
        """Return the result with more moved turns."""
        return PassResult(
            self.spilled + len(spilled.job_ids),
            self.returned + len(returned.job_ids),
            self.lanes | spilled.lanes | returned.lanes,
        )


class Router:
    """Moves turns of the local models' queues. One instance per scheduler."""

    def __init__(self, settings: Settings, database: Database, cache: ServingCache) -> None:
        self._settings = settings
        self._database = database
        self._cache = cache
        self._target = target_of(settings)
        self._outages = Outages()
        self._cursors: dict[str, dict[str, str]] = {}  # by queue: where the next pass begins

    def run_pass(self) -> PassResult:
        """Move what should be moved now. Raises Unavailable."""
        if self._target is None:
            return PassResult()
        state = self._cache.state()
        homes = local_queues(state)
        for home in homes:
            self._outages.seconds(home, state.queue(home))
        with self._database.connection() as connection:
            if not any_waits(connection, [*homes, endpoint_queue(self._target.endpoint)]):
                return PassResult()
        state = self._cache.renew()
        with self._database.connection() as connection:
            breaker = breakers.read(connection, self._target.endpoint)
        result = self._bring_home(state, breaker, self._target)
        for home in homes:
            result = result.plus(spilled=self._spill(state, breaker, self._target, home))
        return result

    def _spill(self, state: ServingState, breaker: Breaker, target: Target, home: str) -> MovedTurns:
        """Move the turns of a local queue that wait too long; one of them where the breaker wants a probe."""
        situation = self._situation(state, home)
        if situation.home.waiting == 0 or not (breaker.accepts or breaker.wants_probe):
            return MovedTurns()
        with self._database.transaction() as connection:
            if not _lock(connection):
                return MovedTurns()
            waiting = read_queued(connection, home, target, self._cursors.setdefault(home, {}))
            chosen, reason = choose_spills(situation, waiting), reason_of(situation)
            if not breaker.accepts:
                return self._probe(connection, state, home, target, chosen[-1:])
            return self._move(connection, state, home, target, chosen[:MOST_MOVES], reason)

    def _probe(
        self, connection: Connection, state: ServingState, home: str, target: Target, turns: list[QueuedTurn]
    ) -> MovedTurns:
        """Move one turn that probes an endpoint whose breaker is open, unless another one does."""
        if not turns or not breakers.begin_probe(connection, target.endpoint, turns[0].id):
            return MovedTurns()
        moved = self._move(connection, state, home, target, turns, "probe")
        if not moved.job_ids:
            breakers.end_probe(connection, target.endpoint, turns[0].id)
        return moved

    def _move(
        self,
        connection: Connection,
        state: ServingState,
        home: str,
        target: Target,
        turns: list[QueuedTurn],
        reason: Reason,
    ) -> MovedTurns:
        if not turns:
            return MovedTurns()
        context = context_of(self._settings)
        candidates = [Candidate(turn.id, cost_of(target, context, turn.most_tokens)) for turn in turns]
        moved = moves.spill(connection, home, target, candidates, reason, unfinished=unfinished_turns(state))
        if moved.job_ids:
            log.info("Moved %d turns from %s to %s: %s", len(moved.job_ids), home, target.endpoint, reason)
        return moved

    def _bring_home(self, state: ServingState, breaker: Breaker, target: Target) -> PassResult:
        """Bring turns back from an endpoint that is not to be asked or is saturated."""
        away = state.queue(endpoint_queue(target.endpoint))
        if away.waiting == 0:
            return PassResult()
        if not (breaker.accepts or breaker.wants_probe or breaker.is_probed):
            reason: moves.ReturnReason = "endpoint_saturated" if breaker.saturated_for else "breaker_open"
            return self._return(target, reason, MOST_MOVES)
        count = min((returning(self._situation(state, home)) for home in local_queues(state)), default=0)
        return self._return(target, "endpoint_saturated", min(count, MOST_MOVES)) if count else PassResult()

    def _return(self, target: Target, reason: moves.ReturnReason, limit: int) -> PassResult:
        with self._database.transaction() as connection:
            returned = moves.return_home(connection, target.endpoint, reason, limit=limit)
        if returned.job_ids:
            log.info("Brought %d turns back from %s: %s", len(returned.job_ids), target.endpoint, reason)
        return PassResult().plus(returned=returned)

    def _situation(self, state: ServingState, home: str) -> Situation:
        assert self._target is not None
        after, queue = self._settings.spill_after, state.queue(home)
        down = self._outages.seconds(home, queue) > after
        return Situation(queue, state.queue(endpoint_queue(self._target.endpoint)), after, down)


def _lock(connection: Connection) -> bool:
    """Return whether this router works until its transaction ends."""
    row = fetch_one(connection, "SELECT pg_try_advisory_xact_lock(%(lock)s) AS locked", {"lock": LOCK})
    return bool(row and row["locked"])


def local_queues(state: ServingState) -> list[str]:
    """Return the queues of the local models' interactive turns."""
    queues = {model.queue for model in state.models} | {state.models.default.queue}
    return sorted(queue for queue in queues if not is_endpoint_queue(queue))


def unfinished_turns(state: ServingState) -> int:
    """Return the turns that wait or run, in all queues of models."""
    return sum(queue.waiting + queue.running for queue in state.queues.values())


def context_of(settings: Settings) -> int:
    """Return the context of the endpoint that turns are moved to."""
    target = settings.spill_target
    return (target[0].context if target else None) or HOSTED_CONTEXT


def cost_of(target: Target, context: int, most_tokens: tuple[int, int] | None) -> Decimal:
    """Return the most that a turn can cost the operator at an endpoint with this context.

    most_tokens  of its prompts, and generated; None: unknown, one generation that fills the context
    """
    prices = target.price_input or Decimal(0), target.price_output or Decimal(0)
    if most_tokens is None:
        return context * max(prices) / PRICE_UNIT
    return (most_tokens[0] * prices[0] + most_tokens[1] * prices[1]) / PRICE_UNIT
