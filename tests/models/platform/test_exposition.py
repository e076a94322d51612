"""The exposition of applications that share the instruments of a process, and the rules that all names follow."""

import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from models.platform import metrics
from models.platform.exposition import Exposition
from models.platform.metrics import ScrapedMetric

#: The labels that metrics may have. None of an account, a job, a user or a text.
LABELS = {
    "commit", "endpoint", "gateway", "kind", "limit", "method", "model", "outcome", "pool", "process", "queue",
    "reason", "route", "state", "status", "task", "version",
}  # fmt: skip


def described(metric):
    """Return the name, the type, the labels and the help of a metric."""
    if isinstance(metric, ScrapedMetric):
        return metric.name, metric.type, metric.labels, metric.text
    suffix = "_total" if metric._type == "counter" else ""
    return metric._name + suffix, metric._type, metric._labelnames, metric._documentation


DEFINED = [described(value) for value in vars(metrics).values() if isinstance(value, ScrapedMetric | MetricWrapperBase)]


def test_applications_of_a_process_have_values_of_their_own():
    # Given two applications that read the same metric
    expositions = [Exposition(), Exposition()]
    for number, exposition in enumerate(expositions):
        exposition.read(metrics.OPEN_STREAMS, lambda number=number: {(): number})
    # Then each has its value, and what the process counts
    for number, exposition in enumerate(expositions):
        text = exposition.render()[0].decode()
        assert f"sangha_open_streams {number}.0\n" in text
        assert text.count("# TYPE process_cpu_seconds_total") == 1


def test_a_metric_that_is_registered_again_is_exported_once():
    exposition = Exposition()
    for value in (1, 2):
        exposition.read(metrics.OPEN_STREAMS, lambda value=value: {(): value})

    text = exposition.render()[0].decode()

    assert "sangha_open_streams 2.0\n" in text
    assert text.count("# TYPE sangha_open_streams") == 1


@pytest.mark.parametrize(("name", "type_", "labels", "text"), DEFINED, ids=[each[0] for each in DEFINED])
def test_a_metric_follows_the_rules_of_names(name, type_, labels, text):
    assert re.fullmatch(r"sangha_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") == (type_ == "counter")
    assert set(labels) <= LABELS
    assert text[0].isupper() or text[0].isdigit()
    assert not text.endswith(".")
    assert not re.search(r"_(milliseconds|ms|minutes|kilobytes|kb|percent)(_|$)", name)
    if type_ == "histogram":
        assert name.endswith("_seconds")


def test_an_unknown_model_is_other():
    metrics.name_model("known-model")

    assert metrics.model_label("known-model") == "known-model"
    assert metrics.model_label("a text of a request") == "other"


def test_observations_carry_the_present_trace_as_an_exemplar(monkeypatch):
    # Given an observation without a trace, and one in another bucket with one
    monkeypatch.setattr(metrics.tracing, "current_trace_id", lambda: None)
    metrics.observe(metrics.DELIVERY_DURATION.labels("of-this-test"), 0.0001)
    monkeypatch.setattr(metrics.tracing, "current_trace_id", lambda: "0af7651916cd43dd8448eb211c80319c")
    metrics.observe(metrics.DELIVERY_DURATION.labels("of-this-test"), 7)
    # Then OpenMetrics has the trace, and the older format, which cannot have it, is valid without
    texts = [Exposition().render(accept)[0].decode() for accept in ("application/openmetrics-text;version=1.0.0", "")]
    lines = [[line for line in text.splitlines() if 'outcome="of-this-test"' in line] for text in texts]
    (exemplar,) = [line for line in lines[0] if "trace_id" in line]
    assert exemplar.startswith('sangha_delivery_duration_seconds_bucket{le="10.0",outcome="of-this-test"} 2.0 # {')
    assert 'trace_id="0af7651916cd43dd8448eb211c80319c"} 7.0' in exemplar
    assert "trace_id" not in texts[1]
