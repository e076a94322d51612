"""`sangha admin` creates, lists and revokes operators."""

import pytest
from click.testing import CliRunner, Result

from models.accounts import accounts
from models.platform.database import Database
from ops.cli import main
from pipelines.accounts import passwords

EMAIL = "boss@example.com"
PASSWORD = "correct horse battery"


def admin(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["admin", *arguments], input=stdin)


def users(database: Database) -> list[dict]:
    with database.connection() as connection:
        return connection.execute("SELECT * FROM users ORDER BY created_at").fetchall()


def actions(database: Database) -> list[str]:
    with database.connection() as connection:
        rows = connection.execute("SELECT action FROM audit_events WHERE account_id IS NOT NULL ORDER BY id").fetchall()
    return [row["action"] for row in rows]


def test_new_operator_can_log_in_and_a_second_run_changes_nothing(installation: Database) -> None:
    first = admin("create", "Boss@Example.com", "--password-stdin", stdin=f"{PASSWORD}\n")
    second = admin("create", "boss@EXAMPLE.com", "--password-stdin", stdin="another password\n")

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    (user,) = users(installation)
    assert user["operator"]
    assert user["email_verified_at"] is not None
    assert passwords.verify(user["password_hash"], PASSWORD)
    with installation.connection() as connection:
        assert [member.role for member in accounts.memberships(connection, user["id"])] == ["owner"]
    assert actions(installation) == ["operator.created"]
    assert "boss@example.com" in admin("list").output.lower()


def test_user_with_an_unverified_address_is_not_made_an_operator(installation: Database) -> None:
    with installation.transaction() as connection:
        unverified = accounts.create(connection, email=EMAIL, password_hash="the attacker's")

    admin("create", EMAIL, "--password-stdin", stdin=f"{PASSWORD}\n")

    operators = {user["id"]: user["operator"] for user in users(installation)}
    assert not operators.pop(unverified.user_id)
    assert list(operators.values()) == [True]


def test_known_user_keeps_their_password_and_needs_no_terminal(installation: Database) -> None:
    with installation.transaction() as connection:
        member = accounts.create(connection, email=EMAIL, password_hash="theirs")
        connection.execute("UPDATE users SET email_verified_at = now()")
        connection.execute("DELETE FROM memberships")

    assert "now" in admin("create", EMAIL).output

    (user,) = users(installation)
    assert (user["id"], user["password_hash"], user["operator"]) == (member.user_id, "theirs", True)
    with installation.connection() as connection:
        assert accounts.memberships(connection, member.user_id), "a user without an account gets one"


def test_revoked_operator_stays_a_user(installation: Database) -> None:
    admin("create", EMAIL, "--password-stdin", stdin=PASSWORD)

    assert admin("revoke", EMAIL).exit_code == 0
    second = admin("revoke", EMAIL)

    assert (second.exit_code, second.stderr) == (2, f"sangha: {EMAIL} is not an operator.\n")
    assert [user["operator"] for user in users(installation)] == [False]
    assert actions(installation) == ["operator.created", "operator.revoked"]
    assert "No operators" in admin("list").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "nonsense", "--password-stdin"], "@-sign"),
        (["create", EMAIL, "--password-stdin"], "password"),
        (["create", EMAIL], "--password-stdin"),
    ],
)
def test_invalid_input_prints_one_line(installation: Database, arguments: list[str], message: str) -> None:
    result = admin(*arguments, stdin="short\n")

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert users(installation) == []
