"""What the processes under measurement are told, and the command that starts it all."""

from pathlib import Path

from bench.stack import environment
from click.testing import CliRunner

from bench import stack
from bench.__main__ import main
from bench.scenarios import SCENARIOS
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, load_settings, variable_name


def test_a_child_gets_the_very_settings(monkeypatch):
    # Given a caller whose own environment points elsewhere
    monkeypatch.setenv("SANGHA_BROKER_URL", "amqp://somewhere.else/")
    settings = Settings.model_validate(
        {"data_dir": Path("/nowhere"), "engine": "scripted", "script": "tokens=7,rate=2.5", "slots": 3}
    )

    # When a child parses what it is told
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    # Then it has these settings and nothing else
    assert load_settings() == settings


def test_all_settings_are_told():
    assert set(environment(Settings.model_validate({}))) == {variable_name(name) for name in Settings.model_fields}


def test_the_list_names_all_scenarios():
    listed = CliRunner().invoke(main, ["--list"])

    assert [line.split()[0] for line in listed.output.splitlines()] == list(SCENARIOS)


def test_an_unknown_scenario_is_refused_by_name():
    refused = CliRunner().invoke(main, ["no-such"])

    assert refused.exit_code == 2
    assert "There is no scenario no-such" in refused.output


def test_without_rabbitmq_one_line_says_what_to_do(monkeypatch):
    def missing(name: str) -> Path:
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with apt install rabbitmq-server")

    monkeypatch.setattr(stack, "program", missing)

    told = CliRunner().invoke(main, ["first-event"])

    assert told.exit_code == 2
    assert "apt install rabbitmq-server" in told.output
    assert "--broker redis" in told.output
