"""Delete one-shot results that no client fetched."""

from models.platform.database import Connection, fetch_all

#: Seconds that a result is kept for its client, whose web process may have crashed.
KEPT = 600.0

#: The kinds of jobs with such a result; those of the partial index `jobs_unclaimed`.
KINDS = ("embedding.create", "tokens.count", "memory.search", "context.compact")

#: The kinds as a list of SQL.
KIND_LIST = ", ".join(f"'{kind}'" for kind in KINDS)

# Dead jobs stay for operators to inspect. Those of a batch are deleted once it has their results.
DELETE = f"""
DELETE FROM jobs USING (
    SELECT id FROM jobs
    WHERE kind IN ({KIND_LIST})
      AND finished_at < now() - make_interval(secs => %(kept)s)
      AND state IN ('completed', 'failed', 'cancelled') AND arguments -> 'of_batch' IS NULL
    ORDER BY id DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS unread
WHERE jobs.id = unread.id
RETURNING jobs.id
"""


def delete_unclaimed(connection: Connection, limit: int = 100, *, kept: float = KEPT) -> list[str]:
    """Delete results that were not fetched within `kept` seconds. Returns the ids of their jobs."""
    return [row["id"] for row in fetch_all(connection, DELETE, {"kept": kept, "limit": limit})]
