"""The settings that the chart sets are settings that the processes read, and they start with them."""

import os
import re
from contextlib import contextmanager

import click
import pytest
import yaml
from click.testing import CliRunner

from models.platform.oidc_providers import OPTIONAL, REQUIRED
from models.platform.settings import Settings, load_settings, variable_name
from models.platform.upstreams import VARIABLES as UPSTREAM_VARIABLES
from models.serving.queues import model_queue
from ops.cli import main
from ops.model_options import parse_models, serving
from pipelines.inference.registry import default_model, model_name
from tests.k8s.helm import CHART, render
from tests.k8s.pods import component, environment, own_containers, pods

KNOWN = {variable_name(field) for field in Settings.model_fields}

#: Variables that other programs define: AWS's libraries, OpenTelemetry, Sentry.
STANDARD = ("AWS_", "OTEL_", "SENTRY_")

#: The passwords of in-chart servers, which their pods read from the same Secret.
OF_SERVERS = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "RABBITMQ_DEFAULT_PASS"}

#: What `existingSecret` has in the examples.
SECRET = {
    "SANGHA_DATABASE_URL": "postgresql://sangha@db/sangha",
    "SANGHA_REDIS_URL": "redis://cache:6379/0",
    "SANGHA_BROKER_URL": "amqp://sangha:secret@queue:5672/",
    "SANGHA_SECRET_KEY": "a-key-of-sixteen-characters",
}


def is_known(name: str) -> bool:
    """Return whether a process reads a variable."""
    group = next((each for each in ("SANGHA_UPSTREAM_", "SANGHA_OIDC_") if name.startswith(each)), None)
    suffixes = {"SANGHA_UPSTREAM_": UPSTREAM_VARIABLES, "SANGHA_OIDC_": (*REQUIRED, *OPTIONAL)}
    of_group = group is not None and name.endswith(tuple(f"_{suffix}" for suffix in suffixes[group]))
    return name in KNOWN | OF_SERVERS or name.startswith(STANDARD) or of_group


def test_every_variable_of_the_chart_is_a_setting(example):
    names = {name for _, container in own_containers(example) for name in environment(example, container)}

    assert "SANGHA_HOST" in names
    assert {name for name in names if not is_known(name)} == set()


def test_an_unknown_variable_is_noticed():
    assert not is_known("SANGHA_HOSTS")
    assert not is_known("SANGHA_UPSTREAM_CORP_ADDRESS")


@pytest.fixture
def clean_environment(monkeypatch):
    """The environment of a container: nothing of the tests' own."""
    for name in list(os.environ):
        if is_known(name):
            monkeypatch.delenv(name)
    return monkeypatch


@contextmanager
def settings_of(rendered, container, clean_environment, **overrides):
    """Yield the settings that a container reads."""
    with clean_environment.context() as patch:
        secret = SECRET if rendered.values.get("existingSecret") else {}
        for name, value in (secret | environment(rendered, container)).items():
            patch.setenv(name, value)
        yield load_settings(**overrides)


def test_processes_start_with_the_variables_of_their_containers(example, clean_environment):
    for _, container in own_containers(example):
        with settings_of(example, container, clean_environment) as settings:
            pass
        assert (settings.host, settings.port, settings.metrics_address) == ("0.0.0.0", 8000, "0.0.0.0:9000")
        assert str(settings.data_dir) == "/data"
        assert settings.object_store
        assert settings.secret_key
        assert None not in (settings.database_url, settings.redis_url, settings.broker_url)


def test_the_service_may_be_asked_by_its_name(example):
    for _, container in own_containers(example):
        assert "sangha-web.ai.svc" in environment(example, container)["SANGHA_ALLOWED_HOSTS"].split(",")


def test_every_command_of_the_chart_exists_with_its_options(example):
    commands = set()
    for _, container in own_containers(example):
        name, *arguments = container["args"]
        command = main.commands[name]
        assert isinstance(command, click.Command)
        command.make_context(name, list(arguments))
        commands.add(name)

    assert commands >= {"web", "worker", "scheduler", "doctor", "migrate"}


def test_a_worker_serves_each_pool_once_at_least(examples):
    light = {"recall", "tools", "memory", "billing", "reporting", "delivery", "maintenance"}
    for example in examples.values():
        served = set()
        for pod, container in own_containers(example):
            if component(pod) == "worker":
                served |= {each for each in container["args"][1:] if each in light | {"inference", "upstream"}}
        assert served >= light
        assert served & {"inference", "upstream"}


def test_each_model_has_a_worker_with_its_file(examples):
    arguments = {
        pod["metadata"]["labels"]["sangha-worker"]: container["args"]
        for pod, container in own_containers(examples["several-models"])
        if component(pod) == "worker"
    }

    assert arguments["inference-tiny"] == [
        "worker", "inference", "--model", "tiny=/models/smollm2-135m-instruct.gguf", "--slots", "2"
    ]  # fmt: skip
    assert arguments["inference-llama"] == [
        "worker", "inference", "--model", "meta/llama:3.1=/models/llama.gguf", "--slots", "8", "--context", "16384"
    ]  # fmt: skip


def test_files_are_mounted_in_workers_that_read_them(examples):
    def mounting(example):
        return {
            pod["metadata"]["labels"]["sangha-worker"]
            for pod, container in own_containers(example)
            if "/models" in {mount["mountPath"] for mount in container["volumeMounts"]}
        }

    assert mounting(examples["production"]) == {"inference-llama"}
    assert mounting(examples["several-models"]) == {"inference-llama", "inference-tiny", "recall", "memory"}
    assert mounting(examples["minimal"]) == set()


def test_workers_serve_the_queues_that_they_are_scaled_by(examples, clean_environment):
    served = {}
    for name, example in examples.items():
        for pod, container in own_containers(example):
            if "inference" not in container["args"] or not example.of("ScaledObject"):
                continue
            options = dict(zip(container["args"][2::2], container["args"][3::2], strict=True))
            models = tuple(options[each] for each in ("--model",) if each in options)
            with settings_of(example, container, clean_environment) as settings:
                settings = serving(settings, parse_models(models), ["inference"])
                served[name, pod["metadata"]["name"]] = model_queue(model_name(settings), default_model(settings))
    watched = {
        (name, scaled): re.findall(r"VALUES \('([^']+)'", each["spec"]["triggers"][0]["metadata"]["query"])[0]
        for name, example in examples.items()
        for scaled, each in example.of("ScaledObject").items()
        if "-inference-" in scaled
    }

    assert len(watched) == 5
    assert served == watched


def test_further_host_names_are_added_to_those_of_the_service():
    settings = {"SANGHA_OBJECT_STORE": "s3://b/p", "SANGHA_ALLOWED_HOSTS": "ai.internal"}
    rendered = render({"existingSecret": "s", "settings": settings})

    hosts = rendered.of("ConfigMap")["sangha"]["data"]["SANGHA_ALLOWED_HOSTS"].split(",")
    assert {"ai.internal", "sangha-web.ai.svc"} <= set(hosts)


def test_the_number_of_jobs_is_written_by_scaled_workers_only(examples):
    for name, example in examples.items():
        for pod, container in own_containers(example):
            scaled = component(pod) == "worker" and bool(example.of("ScaledObject"))
            assert ("POD_NAME" in environment(example, container)) == scaled, name


def test_pods_restart_when_a_setting_changes():
    values = {"existingSecret": "s", "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"}}
    before, after = (render({**values, "publicUrl": url}) for url in ("", "https://ai.example.com"))

    for one, other in zip(pods(before), pods(after), strict=True):
        if component(one) in ("web", "worker", "scheduler"):
            assert one["metadata"]["annotations"] != other["metadata"]["annotations"]


def test_the_version_of_the_chart_is_that_of_the_project():
    result = CliRunner().invoke(main, ["--version"])

    assert result.output.split()[-1] == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def test_a_rollout_waits_for_a_model_to_be_loaded(example):
    for each in example.of("Deployment").values():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        assert each["spec"].get("progressDeadlineSeconds", 600) > probe["periodSeconds"] * probe["failureThreshold"]


def test_the_grace_of_pods_covers_preparation_and_drain(example):
    for pod in pods(example):
        if component(pod) in ("web", "worker", "scheduler"):
            (container,) = pod["spec"]["containers"]
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod["spec"]["terminationGracePeriodSeconds"] >= sleep + 50
            assert (sleep > 0) == (component(pod) == "web")
