"""The nightly job enqueues one meditation of each user with new turns, spread over the night, a few at once."""

from datetime import timedelta
from itertools import pairwise

import pytest

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob
from models.memory import meditations
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.memory.meditation import schedule_meditations
from pipelines.memory.store import write_memories
from tests.pipelines.memory.meditation.conftest import START, MemoryUser, embed_words

LANES = Settings(nightly_meditations=2)


@pytest.fixture
def users(empty_database, monkeypatch):
    """Return four users with memories, by id, and one without, of one account in its own database."""
    with empty_database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
    all_users = [MemoryUser(empty_database, "acct_1", None, None) for _ in range(5)]
    for user in all_users[:4]:
        user.write("I own a red bicycle.")
    return sorted(all_users[:4], key=lambda user: user.user_id), all_users[4]


@pytest.fixture
def run_nightly(users, begin_in):
    """`run_nightly()` → the result of the job and the job; with arguments, an operator's."""
    user = users[0][0]

    def run_nightly(job=None, **arguments):
        job = job or NewJob(schedule_meditations.KIND, PLATFORM_ACCOUNT, arguments)
        return schedule_meditations.run(LANES, begin_in(user.database, job)).result, job

    return run_nightly


def meditation_jobs(user):
    return user.fetch(
        "SELECT run_at, serial_key, arguments ->> 'user_id' AS user_id, created_at FROM jobs"
        " WHERE account_id = %(account_id)s ORDER BY run_at"
    )


def conclude(user):
    user.fetch(
        "UPDATE meditations SET outcome = 'nothing_to_do' WHERE account_id = %(account_id)s AND outcome IS NULL"
        " RETURNING id"
    )


def test_meditations_are_spread_over_the_night_in_lanes(users, run_nightly):
    with_memories, without_memories = users

    result, _ = run_nightly()

    jobs = meditation_jobs(without_memories)
    assert result == {"started": 4}
    assert [row["user_id"] for row in jobs] == [user.user_id for user in with_memories]
    assert [row["serial_key"] for row in jobs] == ["meditation lane 0", "meditation lane 1"] * 2
    gaps = {later["run_at"] - row["run_at"] for row, later in pairwise(jobs)}
    assert gaps == {timedelta(hours=1)}


def test_meditation_that_its_user_asks_for_runs_now_and_the_next_of_its_lane_moves_up(users, run_nightly):
    # Given the first of two meditations of a lane, both due later in the night
    run_nightly()
    user = users[0][0]
    lane = [row["user_id"] for row in meditation_jobs(user) if row["serial_key"] == "meditation lane 0"]
    owner = next(each for each in users[0] if each.user_id == lane[0])
    # When its user asks for a meditation
    owner.enqueue_meditation()
    # Then it is queued, and the other one is no longer behind it
    states = {
        row["user_id"]: (row["state"], row["serial_key"], row["blocked"])
        for row in user.fetch(
            "SELECT arguments ->> 'user_id' AS user_id, state, serial_key, blocked FROM jobs"
            " WHERE account_id = %(account_id)s AND run_at < now() + interval '8 hours'"
        )
    }
    assert states[lane[0]] == ("queued", None, False)
    assert states[lane[1]] == ("scheduled", "meditation lane 0", False)
    # And all are reported as queued
    with user.database.connection() as connection:
        unfinished = [meditations.unfinished(connection, SpaceKey(each.account_id, each.user_id)) for each in users[0]]
    assert [meditation.status for meditation in unfinished] == ["queued"] * 4


def test_repeated_attempt_starts_nothing_twice(users, run_nightly):
    result, job = run_nightly()

    again, _ = run_nightly(job)

    assert (result, again) == ({"started": 4}, {"started": 0})


def test_user_without_new_memories_is_skipped(users, run_nightly):
    run_nightly()
    conclude(users[1])
    users[0][2].write("I own a blue bicycle.")

    result, _ = run_nightly()

    assert result == {"started": 1}


def test_operators_start_meditations_of_some_or_all_users_at_once(users, run_nightly):
    with_memories, without_memories = users
    some, job = run_nightly(user_ids=[with_memories[1].user_id, without_memories.user_id, "user_nobody"])
    conclude(without_memories)
    again, _ = run_nightly(job)
    all_users, _ = run_nightly(all=True)

    assert (some, again, all_users) == ({"started": 1}, {"started": 0}, {"started": 4})
    assert len({row["run_at"] for row in meditation_jobs(without_memories)}) == 2


def test_spaces_of_end_users_are_due_with_ten_new_memories(users, run_nightly):
    # Given an application with many end users, of whom three have ten new memories
    owner = users[0][0]
    keys = [SpaceKey("acct_1", owner.user_id, f"person {number:02}") for number in range(20)]
    for number, key in enumerate(keys):
        count = meditations.DUE_MEMORIES - (number >= 3)
        new = [NewMemory(new_id("mem"), f"note {each}", "user", START) for each in range(count)]
        write_memories(owner.database, embed_words, key, new)
    # When the nightly job runs
    result, _ = run_nightly()
    # Then their spaces and those of the four users have a meditation
    assert result == {"started": 4 + 3}
    with owner.database.connection() as connection:
        started = [key.end_user for key in keys if meditations.unfinished(connection, key)]
    assert started == ["person 00", "person 01", "person 02"]
    # And an operator's request includes all spaces of a user
    conclude(owner)
    assert run_nightly(user_ids=[owner.user_id])[0] == {"started": 21}


def test_pages_of_spaces_leave_none_out(users, run_nightly, monkeypatch):
    owner = users[0][0]
    for name in ("b", "a", "c"):
        key = SpaceKey("acct_1", owner.user_id, name)
        write_memories(owner.database, embed_words, key, [NewMemory(new_id("mem"), "note", "user", START)])
    monkeypatch.setattr(schedule_meditations, "PAGE", 2)

    assert run_nightly(all=True)[0] == {"started": 7}
