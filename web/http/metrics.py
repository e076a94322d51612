"""Metrics of requests."""

from prometheus_client import Counter, Histogram

from models.platform import metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Looking up a child by its labels takes longer than counting in it.
_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one response. `route` is the path in the route table, not the requested one, to bound the labels."""
    labels = (route, method if method in METHODS else "OTHER", status)
    if labels not in _children:
        children = metrics.HTTP_REQUESTS.labels(*labels), metrics.HTTP_REQUEST_DURATION.labels(*labels[:2])
        _children[labels] = children
    count, histogram = _children[labels]
    count.inc()
    metrics.observe(histogram, seconds)
