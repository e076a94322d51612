"""The exposition of a process's metrics: its instruments, and what it reads at each scrape."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from models.platform.metrics import REGISTRY, ScrapedMetric

#: The values of a scraped metric by its labels' values.
Values = Mapping[tuple[str, ...], float]


class Exposition(Collector):
    """The metrics of one application. A process has one, tests have many in a process, which share the instruments."""

    def __init__(self) -> None:
        self._reads: dict[ScrapedMetric, Callable[[], Values]] = {}

    def read(self, metric: ScrapedMetric, values: Callable[[], Values]) -> None:
        """Have the values of a metric read at each scrape."""
        self._reads[metric] = values

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from REGISTRY.collect()
        for metric, values in self._reads.items():
            yield family(metric, values())

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text and its content type: OpenMetrics, which has exemplars, if `accept` names it."""
        encode, content_type = choose_encoder(accept)
        return encode(self), content_type


def family(metric: ScrapedMetric, values: Values) -> Metric:
    """Return the samples of a metric."""
    type_ = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    samples: CounterMetricFamily | GaugeMetricFamily = type_(metric.name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        samples.add_metric(labels, value)
    return samples
