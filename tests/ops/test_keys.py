"""Given an installation, when `sangha keys rotate` runs, then the next key signs and the one before holds a while."""

import pytest
from click.testing import CliRunner

from models.access import signing_keys
from models.platform.database import Database
from ops.cli import main


@pytest.fixture
def installation(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of the test's own that the commands work on."""
    monkeypatch.setenv("SANGHA_DATABASE_URL", empty_database.dsn)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    return empty_database


def keys(verb: str) -> list[str]:
    answer = CliRunner().invoke(main, ["keys", verb])
    assert answer.exit_code == 0, answer.output
    return answer.output.splitlines()


def test_the_new_generation_signs_and_the_one_before_holds(installation: Database) -> None:
    (said,) = keys("rotate")

    assert said.startswith("Generation 2 signs new tokens")
    head, first, second = keys("list")
    assert head.split() == ["generation", "since", "state"]
    assert "valid until" in first
    assert second.split()[0] == "2"
    assert second.endswith("signing")
    with installation.connection() as connection:
        assert signing_keys.valid_generations(connection) == [1, 2]


def test_a_generation_holds_no_longer_than_its_tokens(installation: Database) -> None:
    keys("rotate")
    with installation.connection() as connection:
        connection.execute("UPDATE signing_keys SET created_at = created_at - interval '61 minutes'")

    keys("rotate")

    assert [line.split()[3] for line in keys("list")[1:]] == ["retired", "valid", "signing"]
    with installation.connection() as connection:
        assert signing_keys.valid_generations(connection) == [2, 3]
