"""What Prometheus reads at `/metrics`: requests and streams of this process, jobs from the database."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

#: Seconds to the first byte: from well under the goal of 10 ms to well over anybody's patience.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# A series of birth dates beside each counter doubles the text and tells nothing.
disable_created_metrics()  # type: ignore[no-untyped-call]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The measurements of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "sangha_http_requests", "Requests answered", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "sangha_http_request_seconds",
            "Seconds from a request to the first byte of its answer",
            ("route", "method"),
            buckets=BUCKETS,
            registry=self.registry,
        )

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. Labels are bounded: the route is the table's path, not the caller's."""
        method = method if method in METHODS else "OTHER"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def gauge(self, name: str, text: str, read: Callable[[], dict[tuple[str, ...], float]], *labels: str) -> None:
        """Register a gauge that is read when Prometheus asks: `read()` gives a value for each tuple of labels."""
        self.registry.register(_Gauge(name, text, labels, read))

    def exposition(self) -> tuple[bytes, str]:
        """The text for Prometheus and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Gauge(Collector):
    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], dict[tuple[str, ...], float]]
    ) -> None:
        self.name, self.text, self.labels, self.read = name, text, labels, read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The name alone: registering must not read, since what it reads may not be up yet."""
        yield GaugeMetricFamily(self.name, self.text, labels=self.labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values of this moment."""
        family = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in self.read().items():
            family.add_metric(labels, value)
        yield family
