"""`sangha keys` rotates the signing key and keeps the previous one valid for a while."""

from click.testing import CliRunner

from models.access import signing_keys
from models.platform.database import Database
from ops.cli import main


def keys(verb: str) -> list[str]:
    result = CliRunner().invoke(main, ["keys", verb])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_new_generation_signs_and_the_previous_one_stays_valid(installation: Database) -> None:
    (line,) = keys("rotate")

    assert line.startswith("Generation 2 signs new tokens")
    headings, first, second = keys("list")
    assert headings.split() == ["generation", "since", "state"]
    assert "valid until" in first
    assert second.split()[0] == "2"
    assert second.endswith("signing")
    with installation.connection() as connection:
        assert signing_keys.valid_generations(connection) == [1, 2]


def test_generation_is_retired_once_its_tokens_have_expired(installation: Database) -> None:
    keys("rotate")
    with installation.connection() as connection:
        connection.execute("UPDATE signing_keys SET created_at = created_at - interval '61 minutes'")

    keys("rotate")

    assert [line.split()[3] for line in keys("list")[1:]] == ["retired", "valid", "signing"]
    with installation.connection() as connection:
        assert signing_keys.valid_generations(connection) == [2, 3]
