"""Given what nobody will ask for, when the platform prunes, then it goes, and what is asked for stays."""

from models import accounts, addresses
from models.ids import new_id
from models.jobs import PLATFORM_ACCOUNT, NewJob
from models.object_store import Objects
from models.settings import Settings
from pipelines.maintenance import prune


def sign_up(database, *, days_ago):
    with database.transaction() as connection:
        made = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        connection.execute(
            "UPDATE users SET created_at = now() - make_interval(days => %s) WHERE id = %s", (days_ago, made.user_id)
        )
    return made.user_id


def test_people_who_never_came_back_are_forgotten(database, begin, tmp_path):
    recent, lapsed = (sign_up(database, days_ago=days) for days in (1, 60))

    ending = prune.run(Objects.open(Settings(data_dir=tmp_path)), begin(NewJob("maintenance.prune", PLATFORM_ACCOUNT)))

    assert ending.state == "completed"
    with database.connection() as connection:
        assert addresses.person(connection, recent) is not None
        assert addresses.person(connection, lapsed) is None
