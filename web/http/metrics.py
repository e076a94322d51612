"""Prometheus metrics of one web process."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

#: Seconds to the first byte: from well below the goal of 10 ms to a minute.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# The `_created` series beside each counter would double the exposition.
disable_created_metrics()  # type: ignore[no-untyped-call]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: A gauge's values by its labels' values.
Values = dict[tuple[str, ...], float]

Family = GaugeMetricFamily | CounterMetricFamily


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "sangha_http_requests", "Requests answered", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "sangha_http_request_seconds",
            "Seconds from a request to the first byte of its response",
            ("route", "method"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        # Looking up a child by its labels takes longer than counting in it.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one response. `route` is the path in the route table, not the requested one, to bound the labels."""
        labels = (route, method if method in METHODS else "OTHER", status)
        if labels not in self._children:
            self._children[labels] = self._requests.labels(*labels), self._seconds.labels(*labels[:2])
        count, histogram = self._children[labels]
        count.inc()
        histogram.observe(seconds)

    def gauge(self, name: str, text: str, read: Callable[[], Values], *labels: str) -> None:
        """Register a gauge whose values are read at each scrape."""
        self.registry.register(_Read(GaugeMetricFamily, name, text, labels, read))

    def counter(self, name: str, text: str, read: Callable[[], Values], *labels: str) -> None:
        """Register a counter that all processes share, whose values are read at each scrape."""
        self.registry.register(_Read(CounterMetricFamily, name, text, labels, read))

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Read(Collector):
    def __init__(
        self, family: type[Family], name: str, text: str, labels: tuple[str, ...], read: Callable[[], Values]
    ) -> None:
        self.family, self.name, self.text, self.labels, self.read = family, name, text, labels, read

    def describe(self) -> Iterator[Family]:
        """Yield the name without values: at registration the servers that `read` needs may not be up yet."""
        yield self.family(self.name, self.text, labels=self.labels)

    def collect(self) -> Iterator[Family]:
        """Read the current values."""
        family = self.family(self.name, self.text, labels=self.labels)
        for labels, value in self.read().items():
            family.add_metric(labels, value)
        yield family
