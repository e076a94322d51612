"""Given users with and without news, when the night's round begins, then those with news meditate, spread over the
night and a few at once, each once, however often the round is run."""

from datetime import timedelta
from itertools import pairwise

import pytest

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob
from models.platform.settings import Settings
from pipelines.memory.meditation import schedule_meditations
from tests.pipelines.memory.meditation.conftest import MemoryUser

LANES = Settings(nightly_meditations=2)


@pytest.fixture
def minds(empty_database, monkeypatch):
    """Five users of one account, and a database that nobody else has."""
    with empty_database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
    found = [MemoryUser(empty_database, "acct_1", None, None) for _ in range(5)]
    for mind in found[:4]:
        mind.write("I own a red bicycle.")
    return sorted(found[:4], key=lambda mind: mind.user_id), found[4]


@pytest.fixture
def night(minds, begin_in):
    """`night()` → the result of a round; with arguments, of an operator's."""
    mind = minds[0][0]

    def night(job=None, **arguments):
        job = job or NewJob(schedule_meditations.KIND, PLATFORM_ACCOUNT, arguments)
        return schedule_meditations.run(LANES, begin_in(mind.database, job)).result, job

    return night


def waiting(mind):
    return mind.rows(
        "SELECT run_at, serial_key, arguments ->> 'user_id' AS user_id, created_at FROM jobs"
        " WHERE account_id = %(account_id)s ORDER BY run_at"
    )


def conclude(mind):
    mind.rows(
        "UPDATE meditations SET outcome = 'nothing_to_do' WHERE account_id = %(account_id)s AND outcome IS NULL"
        " RETURNING id"
    )


def test_those_with_news_meditate_spread_over_the_night_in_lanes(minds, night):
    with_news, without = minds

    result, _ = night()

    found = waiting(without)
    assert result == {"started": 4}
    assert [row["user_id"] for row in found] == [mind.user_id for mind in with_news]
    assert [row["serial_key"] for row in found] == ["meditation lane 0", "meditation lane 1"] * 2
    gaps = {later["run_at"] - row["run_at"] for row, later in pairwise(found)}
    assert gaps == {timedelta(hours=1)}


def test_a_round_that_is_run_again_starts_nothing_twice(minds, night):
    result, job = night()

    again, _ = night(job)

    assert (result, again) == ({"started": 4}, {"started": 0})


def test_who_has_had_no_turn_since_is_left_in_peace(minds, night):
    night()
    conclude(minds[1])
    minds[0][2].hear("I own a blue bicycle.")

    result, _ = night()

    assert result == {"started": 1}


def test_operators_start_some_or_all_at_once(minds, night):
    with_news, without = minds
    some, job = night(user_ids=[with_news[1].user_id, without.user_id, "user_nobody"])
    conclude(without)
    again, _ = night(job)
    everybody, _ = night(all=True)

    assert (some, again, everybody) == ({"started": 1}, {"started": 0}, {"started": 4})
    assert len({row["run_at"] for row in waiting(without)}) == 2
