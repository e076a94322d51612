"""`sangha breakers` on a real database."""

import pytest

from models.platform.database import Database
from models.serving import breakers
from tests.ops.commands import sangha


@pytest.fixture
def groq(installation: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An endpoint whose breaker is open."""
    monkeypatch.setenv("SANGHA_UPSTREAMS", "groq")
    monkeypatch.setenv("SANGHA_UPSTREAM_GROQ_URL", "https://api.groq.example/v1")
    monkeypatch.setenv("SANGHA_UPSTREAM_GROQ_MODELS", "llama")
    with installation.connection() as connection:
        connection.execute("DELETE FROM circuit_breakers")
        breakers.record_failure(connection, "groq", "job_a", "auth")
    return installation


def state_of(database: Database) -> str:
    with database.connection() as connection:
        return breakers.read(connection, "groq").state


def test_open_breaker_is_listed_with_its_reason_and_the_next_probe(groq: Database) -> None:
    headings, line = sangha("breakers", "list").output.splitlines()

    assert headings.split() == ["endpoint", "breaker", "since", "reason", "next", "probe", "saturated", "failures"]
    assert line.split()[:2] == ["groq", "open"]
    assert " auth " in line
    assert " in 5 s" in line or " in 4 s" in line


def test_pools_shows_the_breakers(groq: Database) -> None:
    assert sangha("pools").output.splitlines()[-1].split()[:2] == ["groq", "open"]


def test_operator_closes_opens_and_frees_a_breaker(groq: Database) -> None:
    assert sangha("breakers", "close", "groq").exit_code == 0
    assert state_of(groq) == "closed"

    assert "gets no more requests" in sangha("breakers", "open", "groq").output
    assert state_of(groq) == "open"
    assert "open (forced)" in sangha("breakers", "list").output

    assert sangha("breakers", "auto", "groq").exit_code == 0
    assert state_of(groq) == "closed"


def test_decisions_of_operators_are_audited(groq: Database) -> None:
    sangha("breakers", "open", "groq")

    with groq.connection() as connection:
        events = connection.execute("SELECT target FROM audit_events WHERE action = 'breaker.opened'").fetchall()
    assert [event["target"] for event in events] == ["groq"]


def test_unknown_endpoint_is_refused_with_the_known_ones(groq: Database) -> None:
    result = sangha("breakers", "open", "grok")

    assert result.exit_code != 0
    assert "there is no endpoint 'grok'; known are: groq" in result.output


def test_installation_without_endpoints_says_so(installation: Database) -> None:
    with installation.connection() as connection:
        connection.execute("DELETE FROM circuit_breakers")

    assert sangha("breakers", "list").output == "No endpoints: SANGHA_UPSTREAMS is unset.\n"
