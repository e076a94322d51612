"""The dashboards are those of their description, and ask for metrics and labels that the code has."""

import importlib.util
import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "observability"
DASHBOARDS = {file.name: json.loads(file.read_text()) for file in (FOLDER / "grafana" / "dashboards").glob("*.json")}
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"

#: Labels that Prometheus adds to each target.
TARGET_LABELS = {"instance", "job"}


def rules() -> list[dict]:
    """Return all rules."""
    files = sorted((FOLDER / "prometheus" / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def panel_queries() -> list[str]:
    """Return the queries of all panels, with Grafana's interval filled in."""
    panels = [panel for each in DASHBOARDS.values() for panel in each["panels"]]
    return [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]


def documented() -> dict[str, set[str]]:
    """Return the labels of the series of the reference by name."""
    rows = re.findall(r"^\| `(sangha_\w+)` \| (\w+) \| (.*?) \|", REFERENCE.read_text(), re.MULTILINE)
    series = {}
    for name, kind, labels in rows:
        for suffix in ("_bucket", "_count", "_sum") if kind == "histogram" else ("",):
            series[name + suffix] = set(re.findall(r"`(\w+)`", labels)) | ({"le"} if suffix == "_bucket" else set())
    return series


def test_the_files_are_those_of_the_description():
    path = FOLDER / "grafana" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_dashboards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert {file.name: file.read_text() for file in module.FOLDER.iterdir()} == module.files(), f"Run python {path}"


def test_prometheus_parses_each_query(tmp_path):
    # Given the queries of all panels as recording rules
    queries = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(panel_queries())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": queries}]}))

    # Then Prometheus' parser accepts all of them
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout


@pytest.mark.parametrize("query", sorted({*panel_queries(), *(rule["expr"] for rule in rules())}))
def test_a_query_asks_for_series_and_labels_that_exist(query):
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = documented()
    selectors = re.findall(r"(?<![\w:\".*])((?:\w+:)*sangha[\w:]*)(?:\{(.*?)\})?", query)

    for name, matchers in selectors:
        assert name in recorded or name in known
        if name in known:
            assert set(re.findall(r"(\w+)[=!]", matchers)) <= known[name] | TARGET_LABELS
    grouped = {label.strip() for labels in re.findall(r"by \((.*?)\)", query) for label in labels.split(",")}
    assert grouped <= {"process", *TARGET_LABELS}.union(*known.values())


def test_each_metric_is_in_a_panel_or_a_rule():
    texts = "\n".join([*panel_queries(), *(rule["expr"] for rule in rules())])
    names = re.findall(r"^\| `(sangha_\w+)`", REFERENCE.read_text(), re.MULTILINE)
    unused = {name for name in names if name not in texts and not name.startswith("sangha_promise_")}

    assert unused == {
        "sangha_build_info",
        "sangha_ended_turns",
        "sangha_endpoint_window_requests",
        "sangha_model_slots",
    }


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_dashboard_has_what_grafana_needs(name):
    dashboard = DASHBOARDS[name]
    panels = dashboard["panels"]

    assert dashboard["schemaVersion"] == 39
    assert dashboard["uid"] == "sangha-" + name.removesuffix(".json")
    assert [variable["type"] for variable in dashboard["templating"]["list"]] == ["datasource"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_panels_do_not_overlap(name):
    for first, second in combinations([panel["gridPos"] for panel in DASHBOARDS[name]["panels"]], 2):
        beside = first["x"] + first["w"] <= second["x"] or second["x"] + second["w"] <= first["x"]
        below = first["y"] + first["h"] <= second["y"] or second["y"] + second["h"] <= first["y"]
        assert beside or below
