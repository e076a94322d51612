"""Values: wrong ones are refused with a sentence that names them, and each is described."""

import json
import re

import jsonschema
import pytest
import yaml

from docs.chart_values import README, read_values, with_table
from tests.k8s.helm import CHART, lint, render, render_all

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())

STORE = {"existingSecret": "s", "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"}}
MODEL = {"file": "/models/a.gguf"}

#: Wrong values → what the message has.
REFUSED = [
    ({"replicas": 2}, "replicas"),
    ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
    ({"image": {"digest": "sha256:12"}}, "at '/image/digest'"),
    ({"publicUrl": "ai.example.com"}, "at '/publicUrl'"),
    ({"settings": {"SANGHA_SIGNUP": ["open"]}}, "at '/settings/SANGHA_SIGNUP'"),
    ({"settings": {"signup": "open"}}, "at '/settings': additional properties 'signup' not allowed"),
    ({"models": {"llama": {"path": "/models/a.gguf"}}}, "'path'"),
    ({"models": {"llama": {"file": "a.gguf"}}}, "at '/models/llama/file'"),
    ({"models": {"llama": {**MODEL, "slots": 0}}}, "at '/models/llama/slots'"),
    ({"models": {"llama": {**MODEL, "name": "agent/x"}}}, "at '/models/llama/name'"),
    ({"models": {"Llama 3.1": MODEL}}, "Llama 3.1"),
    ({"workers": {"tools": {"pools": ["tool"]}}}, "at '/workers/tools/pools/0'"),
    ({"workers": {"tools": {"autoscaling": {"targetWaitSeconds": 0}}}}, "targetWaitSeconds"),
    ({"web": {"replicas": 0}}, "at '/web/replicas'"),
    ({"web": {"resources": {"limits": {"memory": "1 GB"}}}}, "/web/resources/limits/memory"),
    ({"service": {"type": "External"}}, "'ClusterIP', 'NodePort', 'LoadBalancer'"),
    ({"ingress": {"enabled": True}}, "at '/ingress/hosts'"),
    ({"httpRoute": {"enabled": True, "hostnames": ["a"]}}, "at '/httpRoute/parentRefs'"),
    ({"postgresql": {"enabled": True}}, "at '/postgresql/password'"),
    ({"valkey": {"enabled": True, "password": "with/slash"}}, "at '/valkey/password'"),
    # Across values
    ({"existingSecret": ""}, "No database: put SANGHA_DATABASE_URL into the Secret that existingSecret names"),
    ({"existingSecret": "", "secrets": {"SANGHA_DATABASE_URL": "postgresql://d/s"}}, "No Redis or Valkey"),
    (
        {"existingSecret": "", "secrets": {"SANGHA_DATABASE_URL": "postgresql://d/s", "SANGHA_REDIS_URL": "redis://r"}},
        "No secret key",
    ),
    (
        {
            "existingSecret": "",
            "settings": {"SANGHA_OBJECT_STORE": ""},
            "secrets": {
                "SANGHA_DATABASE_URL": "postgresql://d/s",
                "SANGHA_REDIS_URL": "redis://r",
                "SANGHA_SECRET_KEY": "a-key-of-sixteen",
            },
        },
        "No object store",
    ),
    ({"models": {"a": MODEL, "b": MODEL}}, "Several models and no default: set defaultModel"),
    ({"models": {"a": {}, "b": MODEL}, "defaultModel": "b"}, "models.a has no file"),
    ({"secrets": {"SANGHA_OBJECT_STORE": "s3://b/p"}}, "SANGHA_OBJECT_STORE is in settings and in secrets"),
    (
        {
            "ingress": {"enabled": True, "hosts": ["a"]},
            "httpRoute": {"enabled": True, "hostnames": ["a"], "parentRefs": [{"name": "g"}]},
        },
        "ingress.enabled and httpRoute.enabled: choose one",
    ),
    (
        {"workers": {"tools": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}}},
        "Worker tools: autoscaling.minReplicas is 5 and maxReplicas is 2",
    ),
    ({"workers": {"all": {"pools": ["inference", "upstream"]}}}, "inference or upstream, not both"),
    (
        {
            "existingSecret": "",
            "autoscaling": {"enabled": True},
            "secrets": {
                "SANGHA_DATABASE_URL": "postgresql://d/s",
                "SANGHA_REDIS_URL": "redis://r",
                "SANGHA_SECRET_KEY": "a-key-of-sixteen",
            },
        },
        "autoscaling.rabbitmq.enabled needs SANGHA_BROKER_URL",
    ),
]


@pytest.fixture(scope="module")
def refusals():
    """The messages for all wrong values."""
    return [each.error for each in render_all([{**STORE, **values} for values, _ in REFUSED])]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[message[:40] for _, message in REFUSED])
def test_wrong_values_are_refused_by_name(refusals, index):
    assert REFUSED[index][1] in refusals[index]


def test_the_values_beside_the_wrong_ones_are_accepted():
    assert render(STORE).error == ""


def test_the_linter_finds_nothing(examples):
    for name, example in examples.items():
        assert lint(example.values) == [], name


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_the_schema_has_the_defaults_and_no_other_values():
    # `global` is of Helm itself, for charts that include this one.
    assert SCHEMA["properties"].keys() - {"global"} == DEFAULTS.keys()
    for name, value in DEFAULTS.items():
        properties = SCHEMA["properties"][name].get("properties")
        if properties and name != "modelDefaults":  # which overrides some of workerDefaults
            assert properties.keys() == value.keys(), name


def test_every_value_is_described_and_in_the_readme():
    rows = read_values((CHART / "values.yaml").read_text())
    described = {row.path for row in rows if row.meaning}

    def leaves(values, prefix=""):
        for name, value in values.items():
            path = f"{prefix}{name}"
            if path in described:
                continue
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{path}.")
            else:
                yield path

    assert list(leaves(DEFAULTS)) == []
    assert README.read_text() == with_table(README.read_text(), rows), "run python -m docs.chart_values"


def test_templates_use_every_value():
    texts = "\n".join(
        file.read_text() for file in [*CHART.glob("templates/**/*"), CHART / "files" / "pools.yaml"] if file.is_file()
    )

    for name in DEFAULTS:
        assert re.search(rf"\b(\.Values|values|Root)\.{name}\b", texts, re.IGNORECASE), name


def test_notes_say_how_to_reach_the_api_and_what_is_missing(examples):
    assert "The API is at https://ai.example.com." in examples["production"].notes
    assert "port-forward svc/sangha-web" in examples["minimal"].notes
    assert "for trials" in examples["in-chart-dependencies"].notes
    assert "No worker generates text" not in examples["minimal"].notes
    assert "No worker generates text" in render(STORE).notes
    assert "SANGHA_TRUSTED_PROXIES" in examples["gpu"].notes
    assert "SANGHA_TRUSTED_PROXIES" not in examples["production"].notes
