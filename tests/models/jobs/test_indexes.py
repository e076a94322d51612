"""The indexes of `jobs`: each change of a job's state opens all of them."""

from models.platform.database import Database

#: Indexes that only versions before 0013 read, or that have been replaced.
OLD = {"jobs_unpublished", "jobs_in_flight", "jobs_lease", "jobs_serial", "jobs_reserved", "jobs_account_state"}

# A table with the same indexes that is large enough for the planner to tell them apart. It hides `jobs`.
LARGE_TABLE = "CREATE TEMP TABLE jobs (LIKE public.jobs INCLUDING ALL) ON COMMIT DROP"
ROWS = """
INSERT INTO jobs (id, account_id, kind, queue, state, arguments, run_at)
SELECT 'job_' || number, 'acct_' || number % 10, 'turn.run', 'inference', 'completed', '{}', now()
FROM generate_series(1, 5000) AS number
"""
FAILED = "EXPLAIN SELECT id FROM jobs WHERE account_id = 'acct_1' AND state = 'failed' ORDER BY id DESC LIMIT 20"


def test_a_new_database_lacks_the_indexes_of_earlier_versions(database: Database) -> None:
    # When a database has been created
    with database.connection() as connection:
        rows = connection.execute("SELECT indexrelid::regclass::text AS name FROM pg_index").fetchall()

    # Then it has none that only earlier versions read
    assert OLD.isdisjoint(row["name"] for row in rows)


def test_ended_jobs_of_an_account_in_a_state_are_found_by_an_index(database: Database) -> None:
    # Given a large table of jobs
    with database.transaction() as connection:
        for statement in (LARGE_TABLE, ROWS, "ANALYZE jobs"):
            connection.execute(statement)

        # When those of an account in a state are listed
        plan = " ".join(row["QUERY PLAN"] for row in connection.execute(FAILED).fetchall())

    # Then an index finds them in their order: no other row is read and none is sorted
    assert "Index Cond: ((account_id = 'acct_1'::text) AND (state = 'failed'::text))" in plan
    assert "Sort" not in plan
    assert "Filter" not in plan
