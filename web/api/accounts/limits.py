"""Limits in requests of operators."""

from typing import Annotated

from pydantic import Field

from pipelines.requests.validation import RequestBody

#: A limit per minute. At least one, as zero would reject every request.
PerMinuteLimit = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
CountLimit = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class LimitOverrides(RequestBody):
    """Limits of a plan, where null means unlimited, or overrides of an account, where null removes the override."""

    requests_per_minute: PerMinuteLimit | None = None
    tokens_per_minute: PerMinuteLimit | None = None
    streams: CountLimit | None = None
    unfinished_jobs: CountLimit | None = None
    tokens_per_month: CountLimit | None = None
    stored_bytes: CountLimit | None = None
    unfinished_bytes: CountLimit | None = None
    memory_spaces: CountLimit | None = None
