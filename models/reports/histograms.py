"""Histograms with fixed bounds, which can be added up, and their quantiles.

Bucket 0 has what is below the first bound, bucket n what is below bound n. Bounds grow by 9 %, so a quantile is at most
4.5 % off.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: From a thousandth to 4,000: seconds, or tokens per second.
BOUNDS: Sequence[float] = tuple(0.001 * 2 ** (n / 8) for n in range(177))

#: What has a histogram, by the column of a usage record. Sums store the buckets of all in one array: those of the first
#: measure from 0, those of the next from STRIDE on.
MEASURES: Mapping[str, str] = {
    "queue": "queue_seconds",
    "first_token": "first_token_seconds",
    "speed": "tokens_per_second",
}
STRIDE = 1000

#: The quantiles that reports have, by the end of their columns' names.
QUANTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def quantile(samples: Mapping[int, int], share: float) -> float | None:
    """Return the middle of the bucket that has the smallest value with `share` of the samples at or below it."""
    rank = share * sum(samples.values())
    below = 0
    for bucket in sorted(samples):
        below += samples[bucket]
        if below >= rank:
            return middle(bucket)
    return None


def middle(bucket: int) -> float:
    """Return the middle of a bucket, rounded to a thousandth of its value."""
    if bucket == 0:
        return 0.0
    if bucket == len(BOUNDS):
        return BOUNDS[-1]
    return float(f"{(BOUNDS[bucket - 1] * BOUNDS[bucket]) ** 0.5:.4g}")


def add_up(rows: Iterable[Mapping[str, int]]) -> dict[int, int]:
    """Return the histogram of rows with `bucket` and `samples`."""
    histogram: dict[int, int] = {}
    for row in rows:
        histogram[row["bucket"]] = histogram.get(row["bucket"], 0) + row["samples"]
    return histogram


def measure_of(stored_bucket: int) -> dict[str, Any]:
    """Return the `measure` of a stored bucket, and its `bucket`."""
    number, bucket = divmod(stored_bucket, STRIDE)
    return {"measure": tuple(MEASURES)[number], "bucket": bucket}
