"""Jobs that ended without success, by kind, state and the code of their error.

A trigger inserts a row at each such end, so that it counts for good: also if the job is replayed or deleted. Rows of
past quarter hours are merged in one statement, which changes no sum.
"""

from typing import Any

from models.platform.database import Connection, fetch_all
from models.reports.selection import QUARTER_OF, Selection

#: What errors are grouped and filtered by.
DIMENSIONS = ("account_id", "user_id", "key_id", "job_kind")

MERGE = f"""
WITH past AS (
    DELETE FROM error_counts WHERE NOT merged AND quarter < {QUARTER_OF.format(time="now()")}
    RETURNING quarter, account_id, user_id, key_id, job_kind, ended_state, error_code, jobs
)
INSERT INTO error_counts (quarter, account_id, user_id, key_id, job_kind, ended_state, error_code, merged, jobs)
SELECT quarter, account_id, user_id, key_id, job_kind, ended_state, error_code, true, sum(jobs) FROM past
GROUP BY quarter, account_id, user_id, key_id, job_kind, ended_state, error_code
"""


def merge(connection: Connection) -> None:
    """Merge the rows of past quarter hours."""
    connection.execute(MERGE)


SUM = """
SELECT {keys}sum(jobs)::bigint AS jobs FROM error_counts
WHERE quarter >= %(start)s AND quarter < %(end)s{filters} {grouping}
"""


def errors(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return the jobs of each group, of the quarter hours that begin in the period."""
    filters = selection.condition(DIMENSIONS)
    statement = SUM.format(keys=selection.keys, filters=filters, grouping=selection.grouping)
    return fetch_all(connection, statement, selection.parameters())
