"""Jobs whose result is for whoever waits for it, and that go as they are read: what becomes of those that are not."""

from models.platform.database import Connection, fetch_all

#: Seconds that a result waits for its reader, who may have been a process that died.
KEPT = 600.0

# The kinds are those of the index. The dead stay until an operator has dealt with them.
DELETE = """
DELETE FROM jobs USING (
    SELECT id FROM jobs
    WHERE kind IN ('embedding.create', 'tokens.count', 'memory.search')
      AND finished_at < now() - make_interval(secs => %(kept)s)
      AND state IN ('completed', 'failed', 'cancelled')
    ORDER BY id DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS unread
WHERE jobs.id = unread.id
RETURNING jobs.id
"""


def delete_unclaimed(connection: Connection, limit: int = 100, *, kept: float = KEPT) -> list[str]:
    """Delete results that nobody has come to read. Returns the ids of their jobs."""
    return [row["id"] for row in fetch_all(connection, DELETE, {"kept": kept, "limit": limit})]
