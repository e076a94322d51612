"""The rules and dashboards of `observability/` are in the chart, as they are."""

import json
import shutil

import jsonschema
import pytest
import yaml

from tests.k8s.helm import CHART, ROOT, render
from tests.k8s.test_manifests import SCHEMAS

ON = {
    "existingSecret": "s",
    "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"},
    "metrics": {"rules": {"enabled": True, "labels": {"release": "prometheus"}}},
    "dashboards": {"enabled": True},
}

#: Rules and a dashboard with templates of their own, which Helm must not evaluate.
RULES = {
    "groups": [
        {
            "name": "sangha",
            "rules": [
                {
                    "alert": "SanghaJobsWait",
                    "expr": 'sangha_oldest_job_seconds{queue!=""} > 60',
                    "for": "5m",
                    "labels": {"severity": "page"},
                    "annotations": {"summary": "Jobs of {{ $labels.queue }} wait for {{ $value }} s"},
                }
            ],
        }
    ]
}
DASHBOARD = {"title": "Overview", "panels": [{"targets": [{"legendFormat": "{{queue}}"}]}]}


@pytest.fixture
def chart(tmp_path):
    """A copy of the chart with files of observability of its own."""
    copy = tmp_path / "sangha"
    shutil.copytree(CHART, copy, symlinks=True)
    folder = copy / "files" / "observability"
    folder.unlink()
    for name in ("prometheus", "dashboards"):
        (folder / name).mkdir(parents=True)
    (folder / "prometheus" / "Queue_alerts.yml").write_text(yaml.safe_dump(RULES))
    (folder / "prometheus" / "tests.yaml").write_text("rule_files: [Queue_alerts.yml]\ntests: []\n")
    (folder / "recording.yaml").write_text(yaml.safe_dump(RULES))
    (folder / "dashboards" / "overview.json").write_text(json.dumps(DASHBOARD))
    (folder / "dashboards" / "list.json").write_text("{}")
    return copy


def test_rules_are_objects_of_the_operator_with_their_templates(chart):
    rules = render(ON, chart).of("PrometheusRule")

    assert rules.keys() == {"sangha-queue-alerts", "sangha-recording"}
    for each in rules.values():
        assert each["spec"] == RULES
        assert each["metadata"]["labels"]["release"] == "prometheus"
        jsonschema.validate(each, json.loads((SCHEMAS / "PrometheusRule.json").read_text()))


def test_dashboards_are_configmaps_that_grafana_collects(chart):
    dashboards = {name: each for name, each in render(ON, chart).of("ConfigMap").items() if "dashboard" in name}

    assert dashboards.keys() == {"sangha-dashboard-overview"}
    (dashboard,) = dashboards.values()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["overview.json"]) == DASHBOARD


def test_the_chart_has_all_files_of_the_repository():
    folder = ROOT / "observability"
    rules = [file for file in folder.rglob("*.y*ml") if "groups" in (yaml.safe_load(file.read_text()) or {})]
    dashboards = [file for file in folder.rglob("*.json") if "panels" in json.loads(file.read_text())]
    rendered = render(ON)

    assert (CHART / "files" / "observability").resolve() == folder
    assert len(rendered.of("PrometheusRule")) == len(rules)
    assert len([name for name in rendered.of("ConfigMap") if "-dashboard-" in name]) == len(dashboards)


def test_they_are_off_by_default(examples):
    assert examples["minimal"].of("PrometheusRule") == {}
    assert not any("dashboard" in name for name in examples["minimal"].of("ConfigMap"))
