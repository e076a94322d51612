"""Shift the clock of a Python process: `time.time`, `time.time_ns` and the timestamps of UUIDv7.

Python imports a module of this name at its start, from PYTHONPATH. Servers keep their own clocks, as they do where a
machine's clock is wrong.
"""

import os
import time

import uuid_utils

#: Seconds to add to the clock.
SKEW = float(os.environ.get("CHAOS_CLOCK_SKEW", "0"))

_time, _time_ns, _uuid7 = time.time, time.time_ns, uuid_utils.uuid7


def skewed_time_ns() -> int:
    """Return the shifted time in nanoseconds."""
    return _time_ns() + int(SKEW * 1_000_000_000)


def skewed_uuid7() -> uuid_utils.UUID:
    """Return a UUIDv7 of the shifted time."""
    seconds, nanoseconds = divmod(skewed_time_ns(), 1_000_000_000)
    return _uuid7(seconds, nanoseconds)


time.time = lambda: _time() + SKEW
time.time_ns = skewed_time_ns
uuid_utils.uuid7 = skewed_uuid7  # type: ignore[assignment]
