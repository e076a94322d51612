"""Texts of several processes are one valid text, with a label `process`."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from models.platform.exposition import Exposition
from models.platform.merged_metrics import merge, with_process
from models.platform.metrics import HTTP_REQUEST_DURATION, RECALL_DURATION, ScrapedMetric

RESTARTS = ScrapedMetric("sangha_process_restarts_total", "Restarts", ("process",), "counter")


def rendered(accept, *metrics):
    exposition = Exposition()
    for metric, values in metrics:
        exposition.read(metric, lambda values=values: values)
    return exposition.render(accept)[0].decode()


def test_samples_of_a_metric_follow_each_other_once_for_each_process():
    HTTP_REQUEST_DURATION.labels('a "route" {}', "GET").observe(0.1)
    texts = {name: rendered("") for name in ("web", "worker-light", "scheduler")}

    merged = merge(texts)

    families = list(parse_text(merged))
    assert len({family.name for family in families}) == len(families)
    single = sum(len(family.samples) for family in parse_text(texts["web"]))
    assert sum(len(family.samples) for family in families) == 3 * single
    assert {sample.labels["process"] for family in families for sample in family.samples} == set(texts)
    assert merged.count("# TYPE sangha_http_requests_total counter\n") == 1


def test_openmetrics_with_exemplars_stays_openmetrics():
    RECALL_DURATION.observe(0.3, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    texts = {name: rendered("application/openmetrics-text;version=1.0.0") for name in ("web", "scheduler")}

    merged = merge(texts)

    families = {family.name: family for family in parse_openmetrics(merged)}
    exemplars = [sample for sample in families["sangha_recall_duration_seconds"].samples if sample.exemplar]
    assert {sample.labels["process"] for sample in exemplars} == {"web", "scheduler"}
    assert merged.count("# EOF") == 1


def test_metrics_of_one_process_only_are_kept_and_a_label_of_its_own_stays():
    only = ScrapedMetric("sangha_of_one", "Of one process")
    supervisor = rendered("", (RESTARTS, {("web",): 2.0}))

    merged = merge({"supervisor": supervisor, "web": rendered("", (only, {(): 1.0}))})

    assert 'sangha_process_restarts_total{process="web"} 2.0\n' in merged
    assert 'sangha_of_one{process="web"} 1.0\n' in merged


def test_the_label_is_added_to_samples_without_labels():
    assert with_process("a 1.0", "web") == 'a{process="web"} 1.0'
    assert with_process('a 1.0 # {trace_id="1"} 0.5', "web") == 'a{process="web"} 1.0 # {trace_id="1"} 0.5'
    assert with_process('a{b="c d"} 1.0', "web") == 'a{process="web",b="c d"} 1.0'
