"""The example configurations are valid, and name alerts and pipelines that exist."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.observability.test_alerts import alerts

FOLDER = Path(__file__).parents[2] / "observability"


def test_prometheus_accepts_its_configuration():
    file = FOLDER / "prometheus" / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_alertmanager_accepts_its_configuration():
    file = FOLDER / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_routes_by_severity():
    # Given the severities of the alerts
    file = FOLDER / "alertmanager" / "alertmanager.yml"
    receivers = {"critical": "on-call", "warning": "chat"}
    assert {rule["labels"]["severity"] for rule in alerts().values()} == receivers.keys()

    for severity, receiver in receivers.items():
        command = ["amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == receiver


def test_inhibitions_name_alerts():
    rules = yaml.safe_load((FOLDER / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for key in ("source_matchers", "target_matchers") for matcher in rule[key]]
    names = {name for matcher in matchers for name in re.findall(r"Sangha\w+", matcher)}

    assert names
    assert names <= alerts().keys()


def test_the_collectors_pipelines_use_what_is_configured():
    config = yaml.safe_load((FOLDER / "otel-collector" / "config.yaml").read_text())

    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == config[kind].keys()
