"""When a delivery that has failed is tried again: over a day, as the example of Standard Webhooks has it."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Seconds after the first attempt at which the others are due: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
TIMES = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)

#: Attempts before a delivery has failed.
MAX_TRIES = len(TIMES)

#: How much earlier or later an attempt is, so that those of an outage do not come all at once.
JITTER = 0.15

#: Most seconds that a receiver can ask to be left alone with `Retry-After`: the longest time between two attempts.
MAX_RETRY_AFTER = 21_600.0


def next_delay(tries: int, retry_after: float = 0.0) -> float | None:
    """Return the seconds from a failure to the next attempt, of which it was one of `tries`; None: it was the last."""
    if tries >= MAX_TRIES:
        return None
    delay = (TIMES[tries] - TIMES[tries - 1]) * random.uniform(1 - JITTER, 1 + JITTER)
    return max(delay, min(retry_after, MAX_RETRY_AFTER))


def parse_retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` asks for, as a number or a date (RFC 9110, 10.2.3); 0 without one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
