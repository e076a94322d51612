"""The limits of accounts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an account: those of its plan, replaced by operators' overrides. None is unlimited.

    requests_per_minute, tokens_per_minute  of the account, and of each of its API keys
    streams                                 open event streams in one web process
    unfinished_jobs                         jobs that are queued, running or waiting
    unfinished_bytes                        bytes of their arguments, inputs and first events
    tokens_per_month                        tokens billed and reserved in a calendar month (UTC)
    stored_bytes                            bytes of files, such as exports and files that are being imported
    memory_spaces                           end users with memories
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None
    unfinished_jobs: int | None = None
    tokens_per_month: int | None = None
    stored_bytes: int | None = None
    unfinished_bytes: int | None = None
    memory_spaces: int | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a request may use: its account's limits, and the costs known so far.

    estimated_tokens  tokens drawn from the limit per minute; corrected when the turn ends
    context           tokens of prompt and answer together
    billed            whether the account's usage is billed, so that it may have spending limits
    """

    limits: Limits = field(default_factory=Limits)
    estimated_tokens: int = 0
    context: int = 0
    billed: bool = False


UNLIMITED = Allowance()


def parse_limits(stored: Mapping[str, Any]) -> Limits:
    """Parse `plans.limits || accounts.limits`. Unknown keys are ignored."""
    return Limits(**{limit.name: stored.get(limit.name) for limit in fields(Limits)})
