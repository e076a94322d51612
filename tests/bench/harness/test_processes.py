"""The environment of the harness's processes."""

from pathlib import Path

from bench.harness.processes import environment_of
from models.platform.settings import Settings, load_settings, variable_name
from models.platform.upstreams import Upstream


def test_a_process_gets_exactly_the_given_settings(monkeypatch):
    # Given a caller whose own environment has other settings
    monkeypatch.setenv("SANGHA_BROKER_URL", "amqp://somewhere.else/")
    monkeypatch.setenv("SANGHA_UPSTREAM_OTHER_URL", "http://somewhere.else/v1")
    settings = Settings.model_validate(
        {
            "data_dir": Path("/nowhere"),
            "engine": "scripted",
            "script": "tokens=7,rate=2.5",
            "slots": 3,
            "upstreams": (Upstream("peer", "http://127.0.0.1:1/v1", ("tokens=20;rate=0",)),),
        }
    )

    # When a process parses its environment
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)

    # Then it has these settings and no other
    assert load_settings() == settings


def test_all_settings_are_in_the_environment():
    assert set(environment_of(Settings.model_validate({}))) >= {variable_name(name) for name in Settings.model_fields}
