"""How many memories were created and deleted, and how many are living: neither deleted nor closed.

Triggers insert a row for each statement that changes the number. Rows of past quarter hours are merged in one
statement, which changes no sum.
"""

from typing import Any

from models.platform.database import Connection, fetch_all
from models.reports.selection import QUARTER_OF, Selection

#: What memories are grouped and filtered by.
DIMENSIONS = ("account_id", "user_id", "memory_kind")

MERGE = f"""
WITH past AS (
    DELETE FROM memory_counts WHERE NOT merged AND quarter < {QUARTER_OF.format(time="now()")}
    RETURNING quarter, account_id, user_id, memory_kind, created, deleted, living
)
INSERT INTO memory_counts (quarter, account_id, user_id, memory_kind, merged, created, deleted, living)
SELECT quarter, account_id, user_id, memory_kind, true, sum(created), sum(deleted), sum(living) FROM past
GROUP BY quarter, account_id, user_id, memory_kind
"""


def merge(connection: Connection) -> None:
    """Merge the rows of past quarter hours."""
    connection.execute(MERGE)


SUM = """
SELECT {keys}sum(created)::bigint AS created, sum(deleted)::bigint AS deleted, sum(living)::bigint AS living
FROM memory_counts WHERE quarter >= {start} AND quarter < {end}{filters} {grouping}
"""


def changes(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return what each group has gained and lost in the quarter hours that begin in the period."""
    return _sum(connection, selection, "%(start)s", "%(end)s")


def before(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return what each group had gained and lost before the period."""
    return _sum(connection, selection, "'-infinity'", "%(start)s")


def _sum(connection: Connection, selection: Selection, start: str, end: str) -> list[dict[str, Any]]:
    filters = selection.condition(DIMENSIONS)
    keys, grouping = selection.keys, selection.grouping
    statement = SUM.format(keys=keys, start=start, end=end, filters=filters, grouping=grouping)
    return fetch_all(connection, statement, selection.parameters())
