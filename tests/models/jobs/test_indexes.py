"""The indexes of `jobs`: each change of a job's state opens all of them."""

from models.platform.database import Database

#: Indexes that only versions before 0013 read, or that have been replaced.
OLD = {"jobs_unpublished", "jobs_in_flight", "jobs_lease", "jobs_serial", "jobs_reserved", "jobs_account_state"}

FAILED = "EXPLAIN SELECT id FROM jobs WHERE account_id = 'a' AND state = 'failed' ORDER BY id DESC LIMIT 20"


def test_a_new_database_lacks_the_indexes_of_earlier_versions(database: Database) -> None:
    # When a database has been created
    with database.connection() as connection:
        rows = connection.execute("SELECT indexrelid::regclass::text AS name FROM pg_index").fetchall()

    # Then it has none that only earlier versions read
    assert OLD.isdisjoint(row["name"] for row in rows)


def test_ended_jobs_of_an_account_in_a_state_are_found_by_an_index(database: Database) -> None:
    # When the plan for a table that is too large to be read is made
    with database.transaction() as connection:
        connection.execute("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)")
        plan = connection.execute(FAILED).fetchall()

    # Then it reads the index that has only such jobs
    assert "jobs_ended_of_account" in " ".join(row["QUERY PLAN"] for row in plan)
