"""The migration to spaces of end users: existing rows keep their meaning, and the previous version keeps working."""

import shutil

import psycopg
import pytest
from psycopg.rows import dict_row

from models.platform.migrate import FOLDER, migrate
from tests.databases import bare_database

#: The last migration before named spaces.
PREVIOUS = "0028"

#: Rows, and statements of the previous version.
POPULATE = """
INSERT INTO users (id, email) VALUES ('user_1', 'one@example.com'), ('user_2', 'two@example.com');
INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test');
INSERT INTO memberships (account_id, user_id, role)
VALUES ('acct_1', 'user_1', 'owner'), ('acct_1', 'user_2', 'member');
INSERT INTO api_keys (id, account_id, user_id, name, hint, hash, scopes)
VALUES ('key_1', 'acct_1', 'user_1', 'app', 'sk-…', 'hash', '{read}')
"""

INSERT_SPACE = """
INSERT INTO memory_spaces (account_id, user_id, term_version)
SELECT 'acct_1', %(user_id)s, CASE WHEN oldest_code >= '0021' THEN 2 ELSE 1 END FROM schema_compatibility
ON CONFLICT DO NOTHING
"""

INSERT_MEDITATION = """
INSERT INTO meditations (id, account_id, user_id, job_id) VALUES (%(id)s, 'acct_1', 'user_1', %(id)s)
ON CONFLICT DO NOTHING
"""


@pytest.fixture
def connection(postgres, tmp_path, monkeypatch):
    """A connection to a database that the previous version has used, with the migrations since applied."""
    for path in FOLDER.glob("*.sql"):
        if path.name[:4] <= PREVIOUS:
            shutil.copy(path, tmp_path)
    with bare_database(postgres) as dsn:
        with monkeypatch.context() as patch:
            patch.setattr("models.platform.migrate.FOLDER", tmp_path)
            migrate(dsn)
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            connection.execute(POPULATE)
            connection.execute(INSERT_SPACE, {"user_id": "user_1"})
            connection.execute(INSERT_MEDITATION, {"id": "med_1"})
            migrate(dsn)
            yield connection


def test_existing_keys_remember_nothing_of_unnamed_requests(connection):
    assert connection.execute("SELECT memory FROM api_keys").fetchall() == [{"memory": "named"}]


def test_existing_spaces_and_meditations_are_the_users_own(connection):
    assert connection.execute("SELECT end_user FROM memory_spaces").fetchall() == [{"end_user": ""}]
    assert connection.execute("SELECT space FROM meditations").fetchall() == [{"space": ""}]


def test_the_previous_version_still_opens_one_space_and_one_meditation_per_user(connection):
    for user_id, inserted in (("user_1", 0), ("user_2", 1), ("user_2", 0)):
        assert connection.execute(INSERT_SPACE, {"user_id": user_id}).rowcount == inserted
    assert connection.execute(INSERT_MEDITATION, {"id": "med_2"}).rowcount == 0


def test_plans_limit_the_spaces_of_an_account(connection):
    rows = connection.execute("SELECT id, (limits ->> 'memory_spaces')::int AS most FROM plans").fetchall()
    assert {row["id"]: row["most"] for row in rows}.items() >= {"default": 100_000, "unverified": 1000}.items()
