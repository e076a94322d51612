"""Decide for a new turn, in the transaction that inserts it, whether it goes to an endpoint at once.

The choice reads the process's serving state, which is at most a second old, and costs a statement only where the turn
leaves. It does not know how many turns of its own lane are before it: the router's pass, which does, corrects it.
"""

from dataclasses import dataclass

from models.accounts.residency import Residency, strictest
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.platform.settings import Settings
from models.serving import moves
from models.serving.forecast import predicted_wait
from models.serving.moves import Candidate, Reason, Target
from models.serving.queues import endpoint_queue, is_endpoint_queue
from models.serving.state import ServingCache, ServingState
from pipelines.routing import residency
from pipelines.routing.router import Outages, context_of, cost_of, target_of, unfinished_turns

#: The argument of a turn's job with the most tokens that it can be billed for: of prompts, and generated.
MOST_TOKENS = "most_tokens"


@dataclass(frozen=True, slots=True)
class SpillPlan:
    """How a new turn leaves."""

    home: str
    target: Target
    turn: Candidate
    reason: Reason
    unfinished: int

    def carry_out(self, connection: Connection) -> None:
        """Move the turn in the transaction that has inserted it, after all other statements, if it may still leave."""
        moves.spill(connection, self.home, self.target, [self.turn], self.reason, unfinished=self.unfinished)


class NewTurnRouting:
    """What a web process decides about new turns. Thread-safe."""

    def __init__(self, settings: Settings, cache: ServingCache) -> None:
        self._settings = settings
        self._cache = cache
        self._target = target_of(settings)
        self._outages = Outages()

    def check_model(self, wanted: Residency | None, account: Residency | None, model: str) -> None:
        """Raise NotAllowed for a turn that may not leave, and whose model only another host serves.

        wanted   by the request, its agent or its API key; they cannot allow what the account does not
        account  None: that of the installation counts
        """
        if not self._cache.is_ready():
            return  # the check before its dispatch rejects it
        served = self._cache.state().models.find(model)
        if served is not None:
            is_local_model = not residency.leaves_network(self._settings, served.queue)
            allowed = strictest(wanted, account or self._settings.residency)
            residency.check_model(allowed, is_local_model=is_local_model)

    def plan(self, job: NewJob) -> "SpillPlan | None":
        """Return how a turn to insert leaves at once; None: it stays. Reads nothing."""
        home = job.queue or CATALOGUE[job.kind].queue
        if self._target is None or job.batch or not self._cache.is_ready() or not self._may_leave(job):
            return None
        state = self._cache.state()
        if (reason := self._reason(state, home)) is None:
            return None
        cost = cost_of(self._target, context_of(self._settings), _most_tokens(job))
        return SpillPlan(home, self._target, Candidate(job.id, cost), reason, unfinished_turns(state) + 1)

    def _may_leave(self, job: NewJob) -> bool:
        assert self._target is not None
        return self._target.is_local or job.arguments.get(residency.ARGUMENT) != "local"

    def _reason(self, state: ServingState, home: str) -> Reason | None:
        """Return why a turn that arrives now should leave; None: it should not."""
        assert self._target is not None
        queue, away = state.queue(home), state.queue(endpoint_queue(self._target.endpoint))
        after = self._settings.spill_after
        if away.threads <= 0 or is_endpoint_queue(home):
            return None
        if queue.threads <= 0:
            return "engine_down" if self._outages.seconds(home, queue) > after else None
        self._outages.seconds(home, queue)
        wait = predicted_wait(queue)
        if wait is None or wait <= after:
            return None
        there = predicted_wait(away)
        return "queue_full" if there is not None and there < wait else None


def _most_tokens(job: NewJob) -> tuple[int, int] | None:
    most = job.arguments.get(MOST_TOKENS)
    return (most[0], most[1]) if most else None
