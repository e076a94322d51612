"""Given what nobody will ask for, when the platform prunes, then it goes, and what is asked for stays."""

import pytest

from models.access import api_keys
from models.accounts import accounts, emails
from models.jobs import jobs
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.memory import meditations
from models.platform.ids import new_id
from models.platform.object_store import Objects
from models.platform.settings import Settings
from pipelines.maintenance import prune


def sign_up(database, *, days_ago):
    with database.transaction() as connection:
        made = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        connection.execute(
            "UPDATE users SET created_at = now() - make_interval(days => %s) WHERE id = %s", (days_ago, made.user_id)
        )
    return made.user_id


def pruned(begin, folder):
    ending = prune.run(Objects.open(Settings(data_dir=folder)), begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT)))
    assert ending.state == "completed"


def ended(database, account_id, kind, *, days_ago, state="completed"):
    job = NewJob(kind, account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute(
            "UPDATE jobs SET state = %s, finished_at = now() - make_interval(days => %s) WHERE id = %s",
            (state, days_ago, job.id),
        )
    return job.id


@pytest.mark.parametrize(
    ("kind", "days_ago", "state", "stays"),
    [
        ("memory.remember", 31, "completed", False),
        ("memory.remember", 29, "completed", True),
        ("email.send", 31, "cancelled", False),
        ("account.export", 31, "dead", True),
        ("turn.run", 400, "completed", True),
    ],
)
def test_ended_work_is_kept_for_a_month_and_turns_for_ever(
    database, account, begin, tmp_path, kind, days_ago, state, stays
):
    job_id = ended(database, account, kind, days_ago=days_ago, state=state)

    pruned(begin, tmp_path)

    with database.connection() as connection:
        assert (jobs.read(connection, job_id, account) is not None) is stays


def test_whoever_has_started_what_is_dead_stays_with_it(database, account, begin, tmp_path):
    """A job takes what it has started along when it goes."""
    parent, dead = (
        ended(database, account, kind, days_ago=31, state=state)
        for kind, state in (("meditation.run", "completed"), ("memory.insight", "dead"))
    )
    other, gone = (ended(database, account, kind, days_ago=31) for kind in ("meditation.run", "memory.insight"))
    with database.connection() as connection:
        for child, started_by in ((dead, parent), (gone, other)):
            connection.execute("UPDATE jobs SET parent_id = %s WHERE id = %s", (started_by, child))

    pruned(begin, tmp_path)

    with database.connection() as connection:
        stay = {job_id for job_id in (parent, dead, other, gone) if jobs.read(connection, job_id, account)}
    assert stay == {parent, dead}


def test_what_a_meditation_still_tells_by_its_job_stays_told(database, account, begin, tmp_path):
    """One that was cancelled before it began has no outcome but its job's."""
    user_id, told = sign_up(database, days_ago=1), new_id("med")
    job_id = ended(database, account, "meditation.run", days_ago=31, state="cancelled")
    with database.transaction() as connection:
        assert meditations.insert(connection, told, account_id=account, user_id=user_id, job_id=job_id)

    pruned(begin, tmp_path)

    with database.connection() as connection:
        assert meditations.read(connection, told, account, user_id).status == "cancelled"


def test_more_than_a_batch_goes(database, account, begin, tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 2)
    job_ids = [ended(database, account, "memory.remember", days_ago=40) for _ in range(5)]

    pruned(begin, tmp_path)

    with database.connection() as connection:
        assert [jobs.read(connection, job_id, account) for job_id in job_ids] == [None] * 5


def test_keys_that_ended_long_ago_are_forgotten(database, begin, tmp_path):
    # Given keys that were revoked long ago, that expired long ago, that were revoked lately, and that hold
    user_id = sign_up(database, days_ago=200)
    place = "SELECT account_id FROM memberships WHERE user_id = %s"
    given = {"name": "a key", "hint": "sk_…", "scopes": (), "user_id": user_id}
    ends = {"revoked": (100, None), "expired": (None, 100), "lately": (10, None), "holds": (None, None)}
    with database.transaction() as connection:
        account_id = connection.execute(place, (user_id,)).fetchone()["account_id"]
        keys = {
            name: api_keys.insert(
                connection, key_id=new_id("key"), account_id=account_id, secret_hash=name.encode() * 4,
                expires_at=None, **given
            ).id
            for name in ends
        }  # fmt: skip
        for name, (revoked, expired) in ends.items():
            connection.execute(
                "UPDATE api_keys SET revoked_at = now() - make_interval(days => %s),"
                " expires_at = now() - make_interval(days => %s) WHERE id = %s",
                (revoked, expired, keys[name]),
            )

    # When the platform prunes
    pruned(begin, tmp_path)

    # Then only those of long ago are gone
    with database.connection() as connection:
        left = {key.id for key in api_keys.list_keys(connection, account_id)}
    assert left == {keys["lately"], keys["holds"]}


def test_people_who_never_came_back_are_forgotten(database, begin, tmp_path):
    recent, lapsed = (sign_up(database, days_ago=days) for days in (1, 60))

    pruned(begin, tmp_path)

    with database.connection() as connection:
        assert emails.read_user(connection, recent) is not None
        assert emails.read_user(connection, lapsed) is None
