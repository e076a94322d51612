"""The command of the measurements."""

from pathlib import Path

from click.testing import CliRunner

from bench.__main__ import main
from bench.harness import stack
from bench.scenarios import SCENARIOS
from models.platform.errors import ConfigurationError


def test_the_list_has_all_scenarios():
    listed = CliRunner().invoke(main, ["--list"])

    assert [line.split()[0] for line in listed.output.splitlines()] == list(SCENARIOS)


def test_an_unknown_scenario_is_rejected_by_name():
    rejected = CliRunner().invoke(main, ["no-such"])

    assert rejected.exit_code == 2
    assert "There is no scenario no-such" in rejected.output


def test_without_rabbitmq_one_line_says_what_to_do(monkeypatch):
    def missing(name: str) -> Path:
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with apt install rabbitmq-server")

    monkeypatch.setattr(stack, "program", missing)

    result = CliRunner().invoke(main, ["first-event"])

    assert result.exit_code == 2
    assert "apt install rabbitmq-server" in result.output
    assert "--broker redis" in result.output


def test_an_attack_is_rejected_without_its_scenario():
    rejected = CliRunner().invoke(main, ["streams", "--attack", "large-blanks"])

    assert rejected.exit_code == 2
    assert "--attack selects attacks of the scenario `adversary`" in rejected.output
