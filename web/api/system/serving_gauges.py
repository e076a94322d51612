"""Gauges of models and endpoints. Their labels are those of the installation, never what requests name."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import psycopg

from models.platform import metrics
from models.platform.errors import Unavailable
from models.platform.exposition import Values
from models.platform.metrics import ScrapedMetric
from models.platform.settings import Settings
from models.serving import breakers, moves, spill_budget
from models.serving.breakers import Breaker
from models.serving.forecast import predicted_wait
from models.serving.spill_budget import SpillDay
from models.serving.state import ServingState
from web.api.platform import Platform
from web.api.system.cached_read import CachedRead

log = logging.getLogger(__name__)

#: Seconds to wait for a connection: a scrape has to end also while Postgres is away.
WAIT = 1.0

STATES = ("closed", "open", "half_open")


@dataclass(frozen=True, slots=True)
class Reading:
    """What all gauges show, read at once; nothing while Postgres is down."""

    state: ServingState | None = None
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    moves: Mapping[tuple[str, str], int] = field(default_factory=dict)
    days: Sequence[SpillDay] = ()
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)


def install(platform: Platform) -> None:
    """Register the gauges of this process."""
    reading = CachedRead(partial(read, platform))
    reads: Mapping[ScrapedMetric, Callable[[Reading], Values]] = {
        metrics.MODEL_PREDICTED_WAIT: predicted_waits,
        metrics.MODEL_TURNS: turns,
        metrics.MODEL_SLOTS: slots,
        metrics.ENDPOINT_BREAKER: breaker_states,
        metrics.ENDPOINT_SATURATED: saturation,
        metrics.ENDPOINT_WINDOW_REQUESTS: window_requests,
        metrics.ENDPOINT_FAILURES: lambda reading: _floats(reading.failures),
        metrics.ENDED_TURNS: lambda reading: {(queue,): float(count) for queue, count in reading.ended.items()},
        metrics.TURN_MOVES: lambda reading: _floats(reading.moves),
        metrics.SPILL_TURNS: spilled_turns,
        metrics.SPILL_COST: spill_cost,
        metrics.SPILL_BUDGET_USED: partial(budget_used, platform.settings),
    }
    for metric, values in reads.items():
        platform.metrics.read(metric, partial(_values, values, reading))


def _values(values: Callable[[Reading], Values], reading: Callable[[], Reading]) -> Values:
    return values(reading())


def read(platform: Platform) -> Reading:
    """Read what the gauges show."""
    try:
        with platform.database.connection(wait=WAIT) as connection:
            rows = Reading(
                None,
                breakers.list_breakers(connection),
                moves.moves_by_reason(connection),
                spill_budget.list_today(connection),
                breakers.failures_by_kind(connection),
                spill_budget.ended_today(connection),
            )
        return replace(rows, state=platform.serving.state())
    except (Unavailable, psycopg.Error) as error:
        log.warning("Cannot read models and endpoints for the metrics: %s", error)
        return Reading()


def predicted_waits(reading: Reading) -> Values:
    """Return the predicted waits by model."""
    state = reading.state
    waits = {(model.id,): predicted_wait(state.queue(model.queue)) for model in state.models} if state else {}
    return {labels: wait for labels, wait in waits.items() if wait is not None}


def turns(reading: Reading) -> Values:
    """Return the turns by model and state."""
    return {
        (model.id, name): float(count)
        for model in (reading.state.models if reading.state else ())
        for queue in ([reading.state.queue(model.queue)] if reading.state else ())
        for name, count in (("queued", queue.waiting), ("running", queue.running))
    }


def slots(reading: Reading) -> Values:
    """Return the slots by model."""
    return {(model.id,): float(model.slots) for model in reading.state.models} if reading.state else {}


def breaker_states(reading: Reading) -> Values:
    """Return 1 for the state of each endpoint's breaker, and 0 for the others."""
    return {
        (endpoint, state): float(breaker.state == state)
        for endpoint, breaker in reading.breakers.items()
        for state in STATES
    }


def saturation(reading: Reading) -> Values:
    """Return the seconds for which each endpoint is left alone."""
    return {(name,): breaker.saturated_for for name, breaker in reading.breakers.items()}


def window_requests(reading: Reading) -> Values:
    """Return the last requests to each endpoint by their outcome."""
    return {
        (name, outcome): float(count)
        for name, breaker in reading.breakers.items()
        for outcome, count in (
            ("success", breaker.window_requests - breaker.window_failures),
            ("failure", breaker.window_failures),
        )
    }


def _floats(counts: Mapping[tuple[str, str], int]) -> Values:
    return {labels: float(count) for labels, count in counts.items()}


def spilled_turns(reading: Reading) -> Values:
    """Return today's moved turns by endpoint."""
    return {(day.endpoint,): float(day.turns) for day in reading.days}


def spill_cost(reading: Reading) -> Values:
    """Return today's cost by endpoint and state."""
    return {
        (day.endpoint, state): float(cost)
        for day in reading.days
        for state, cost in (("spent", day.spent), ("reserved", day.reserved))
    }


def budget_used(settings: Settings, reading: Reading) -> Values:
    """Return the used part of each limit of today's budget: of the endpoint that turns are moved to."""
    target = settings.spill_target
    days = [day for day in reading.days if target and day.endpoint == target[0].name]
    values: dict[tuple[str, ...], float] = {}
    for day in days:
        if settings.spill_money:
            values[day.endpoint, "money"] = float((day.spent + day.reserved) / settings.spill_money)
        if settings.spill_share and day.ended_turns:
            values[day.endpoint, "share"] = day.turns / (settings.spill_share * day.ended_turns)
    return values
