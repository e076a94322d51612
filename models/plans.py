"""Plans: how much an account may use."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
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


def limits(stored: Mapping[str, Any]) -> Limits:
    """From `plans.limits || accounts.limits`; what is not a limit of ours is left out."""
    return Limits(**{field.name: stored.get(field.name) for field in fields(Limits)})
