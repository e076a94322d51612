"""`sangha effects` on a real database."""

import pytest

from models.jobs import effects
from models.platform.database import Database
from models.platform.ids import new_id
from tests.ops.commands import sangha


@pytest.fixture
def unknown_effect(installation: Database, dead_job: str) -> str:
    """The job of an effect that nobody could look up."""
    with installation.connection() as connection:
        connection.execute(
            "INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash, state)"
            " VALUES (%s, 'charge', 'acct_1', 'key_1', '', 'unknown')",
            (dead_job,),
        )
    return dead_job


def stored(database: Database, job_id: str) -> effects.Effect:
    with database.connection() as connection:
        effect = effects.read(connection, job_id, "charge")
    assert effect is not None
    return effect


def test_unknown_effects_are_listed_with_their_keys(unknown_effect: str) -> None:
    line = sangha("effects", "list").output.splitlines()[1]

    assert line.split()[:3] == [unknown_effect, "charge", "acct_1"]
    assert line.endswith("key_1")


def test_an_effect_is_resolved_with_its_result(installation: Database, unknown_effect: str) -> None:
    result = sangha("effects", "resolve", unknown_effect, "charge", "done", "--result", '{"id": "ch_1"}')

    assert result.output.startswith("resolved as done\n")
    assert f"sangha dead replay {unknown_effect}" in result.output
    assert stored(installation, unknown_effect).result == {"id": "ch_1"}
    assert sangha("effects", "list").output == "No unknown effects.\n"


def test_a_job_that_failed_because_of_the_effect_can_be_replayed(installation: Database, unknown_effect: str) -> None:
    with installation.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'failed', error = '{\"code\": \"effect_unknown\"}' WHERE id = %s",
            (unknown_effect,),
        )

    result = sangha("effects", "resolve", unknown_effect, "charge", "done")

    assert (
        f"The job is failed. It continues with this outcome after `sangha dead replay {unknown_effect}`"
        in result.output
    )
    assert sangha("dead", "replay", unknown_effect).exit_code == 0


def test_an_effect_is_resolved_as_failed_with_a_reason(installation: Database, unknown_effect: str) -> None:
    sangha("effects", "resolve", unknown_effect, "charge", "failed", "--reason", "Never charged.")

    assert stored(installation, unknown_effect).error == {"code": "effect_failed", "message": "Never charged."}


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("step = 'refund'", "there is no step charge of {job_id}"),
        ("state = 'done'", "step charge of {job_id} is done"),
        ("state = 'intent'", "{job_id} is unfinished, and its next attempt looks up what happened"),
    ],
)
def test_an_effect_that_is_not_unknown_is_not_resolved(
    installation: Database, unknown_effect: str, assignment: str, reason: str
) -> None:
    with installation.connection() as connection:
        connection.execute(f"UPDATE effects SET {assignment}")
        connection.execute("UPDATE jobs SET state = 'queued', finished_at = NULL")

    result = sangha("effects", "resolve", unknown_effect, "charge", "failed")

    assert result.exit_code == 2
    assert result.stderr == f"sangha: not resolved: {reason.format(job_id=unknown_effect)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("done", "--result", "{"), "sangha: the result is not valid JSON: "),
        (("done", "--result", "[1]"), "sangha: the result is not a JSON object"),
        (("failed", "--result", "{}"), "Give --result with done, --reason with failed."),
        (("done", "--reason", "x"), "Give --result with done, --reason with failed."),
    ],
)
def test_a_malformed_decision_is_refused(installation: Database, arguments: tuple[str, ...], message: str) -> None:
    result = sangha("effects", "resolve", new_id("job"), "charge", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr
