"""Plans: how much an account may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account may use: its plan's word, or an operator's above it. None is no limit.

    requests_per_minute, tokens_per_minute  for the account and, alike, for each of its API keys
    streams                                 open event streams in one web process
    unfinished_jobs                         jobs that are queued, running or waiting
    tokens_per_month                        tokens billed and reserved in a calendar month (UTC)
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None
    unfinished_jobs: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request may begin: its account's limits, and what is known of its cost.

    charged  tokens a minute that the door has drawn for it, by estimate
    context  tokens that prompt and answer have in the engine together
    """

    limits: Limits = field(default_factory=Limits)
    charged: int = 0
    context: int = 0


UNLIMITED = Allowance()


def parse_limits(stored: Mapping[str, Any]) -> Limits:
    """From `plans.limits || accounts.limits`; what is not a limit of ours is left out."""
    return Limits(**{known.name: stored.get(known.name) for known in fields(Limits)})
