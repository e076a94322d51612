"""`sangha prices` on a real database."""

from models.platform.database import Database
from tests.ops.commands import sangha

SET = ("prices", "set", "llama", "--currency", "eur", "--input", "0.20", "--output", "0.60")


def test_a_price_is_set_listed_and_audited(installation: Database) -> None:
    assert sangha("prices", "list").output.startswith("No prices.")

    assert sangha(*SET).exit_code == 0
    headings, price = sangha("prices", "list", "--model", "llama").output.splitlines()

    assert headings.split()[:7] == ["model", "endpoint", "class", "currency", "input", "cached", "output"]
    assert price.split()[:7] == ["llama", "any", "standard", "EUR", "0.20", "0.20", "0.60"]
    with installation.connection() as connection:
        (event,) = connection.execute("SELECT action, target FROM audit_events").fetchall()
    assert event == {"action": "price.added", "target": price.split()[-1]}


def test_a_price_cannot_begin_in_the_past(installation: Database) -> None:
    result = sangha(*SET, "--from", "2026-01-01T00:00")

    assert (result.exit_code, result.stderr) == (2, "sangha: A price cannot begin in the past.\n")


def test_what_is_no_amount_or_time_is_named(installation: Database) -> None:
    assert "'0,20' is no decimal number" in sangha(*SET, "--cached-input", "0,20").stderr
    assert "'soon' is no time of ISO 8601" in sangha(*SET, "--from", "soon").stderr
