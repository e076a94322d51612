"""Given an installation, when `sangha admin` runs at its machine, then operators come and go."""

import pytest
from click.testing import CliRunner, Result

from models.accounts import accounts
from models.platform.database import Database
from ops.cli import main
from pipelines.accounts import passwords

EMAIL = "boss@example.com"
PASSWORD = "correct horse battery"


@pytest.fixture
def installation(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of the test's own that the commands work on."""
    monkeypatch.setenv("SANGHA_DATABASE_URL", empty_database.dsn)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    return empty_database


def admin(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["admin", *arguments], input=stdin)


def users(database: Database) -> list[dict]:
    with database.connection() as connection:
        return connection.execute("SELECT * FROM users ORDER BY created_at").fetchall()


def actions(database: Database) -> list[str]:
    with database.connection() as connection:
        rows = connection.execute("SELECT action FROM audit_events WHERE account_id IS NOT NULL ORDER BY id").fetchall()
    return [row["action"] for row in rows]


def test_a_new_operator_can_log_in_and_a_second_run_changes_nothing(installation: Database) -> None:
    first = admin("create", "Boss@Example.com", "--password-stdin", stdin=f"{PASSWORD}\n")
    again = admin("create", "boss@EXAMPLE.com", "--password-stdin", stdin="another password\n")

    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    (user,) = users(installation)
    assert user["operator"]
    assert user["email_verified_at"] is not None
    assert passwords.verify(user["password_hash"], PASSWORD)
    with installation.connection() as connection:
        assert [member.role for member in accounts.memberships(connection, user["id"])] == ["owner"]
    assert actions(installation) == ["operator.created"]
    assert "boss@example.com" in admin("list").output.lower()


def test_who_only_claims_the_address_does_not_get_the_mark(installation: Database) -> None:
    with installation.transaction() as connection:
        claim = accounts.create(connection, email=EMAIL, password_hash="the attacker's")

    admin("create", EMAIL, "--password-stdin", stdin=f"{PASSWORD}\n")

    marked = {user["id"]: user["operator"] for user in users(installation)}
    assert not marked.pop(claim.user_id)
    assert list(marked.values()) == [True]


def test_a_known_user_keeps_their_password_and_needs_no_terminal(installation: Database) -> None:
    with installation.transaction() as connection:
        member = accounts.create(connection, email=EMAIL, password_hash="theirs")
        connection.execute("UPDATE users SET email_verified_at = now()")
        connection.execute("DELETE FROM memberships")

    assert "now" in admin("create", EMAIL).output

    (user,) = users(installation)
    assert (user["id"], user["password_hash"], user["operator"]) == (member.user_id, "theirs", True)
    with installation.connection() as connection:
        assert accounts.memberships(connection, member.user_id), "who has no account gets one"


def test_a_revoked_operator_is_a_user_like_others(installation: Database) -> None:
    admin("create", EMAIL, "--password-stdin", stdin=PASSWORD)

    assert admin("revoke", EMAIL).exit_code == 0
    again = admin("revoke", EMAIL)

    assert (again.exit_code, again.stderr) == (2, f"sangha: {EMAIL} is no operator.\n")
    assert [user["operator"] for user in users(installation)] == [False]
    assert actions(installation) == ["operator.created", "operator.revoked"]
    assert "No operators" in admin("list").output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "nonsense", "--password-stdin"], "@-sign"),
        (["create", EMAIL, "--password-stdin"], "password"),
        (["create", EMAIL], "--password-stdin"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(installation: Database, arguments: list[str], says: str) -> None:
    answer = admin(*arguments, stdin="short\n")

    assert answer.exit_code == 2
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert users(installation) == []
